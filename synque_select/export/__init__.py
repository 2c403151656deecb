"""A mixture as data for other trainers: Parquet, JSON lines, a saved dataset, or their config."""
