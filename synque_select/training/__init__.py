"""What every fit needs, in a callback, probe, study or experiment."""
