"""What is kept across runs: ranking files, run records, and the correlations over them."""
