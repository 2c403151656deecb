"""Pure functions: tensors in, numbers out, on any device, without files or models."""
