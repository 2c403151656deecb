"""Short fits on each candidate alone."""
