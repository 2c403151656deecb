"""Packaged configs: one YAML file per recipe and size, and the LENS configs."""
