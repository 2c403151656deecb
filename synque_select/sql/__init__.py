"""Running untrusted SQL read-only and within limits, and comparing the text of queries."""
