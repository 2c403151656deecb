"""Proxies score candidates against the real sample."""
