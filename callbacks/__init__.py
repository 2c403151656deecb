"""Callbacks for pytorch_lightning's Trainer."""
