"""SQL from models and from files, run read-only with limits."""
