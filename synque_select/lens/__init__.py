"""LENS: a language model writes rubrics of two sets of samples, and judges samples by them."""
