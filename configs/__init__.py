"""Packaged configs, one YAML a recipe and size."""
