"""Training on a mixture with the Trainer of Hugging Face, or one that is derived from it."""

from synque_select.hf.mixture import HFMixture

__all__ = ["HFMixture"]
