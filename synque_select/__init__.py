"""synque-select: rank candidate synthetic datasets against a small unannotated real sample."""
