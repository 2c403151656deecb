"""Language models in this process, run by the transformers library."""
