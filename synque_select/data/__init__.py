"""Candidates, the real sample, and how a mixture of candidates is served to a Trainer."""
