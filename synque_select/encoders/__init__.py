"""Encoders turn views into embeddings; what was encoded once is kept, by content."""
