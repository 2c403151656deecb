"""The released SynQuE benchmark: reads it, scores it, prints its tables."""
