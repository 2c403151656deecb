"""What every fit needs, whoever starts it: callbacks, probes, tuning, experiments."""
