"""From proxies' scores to a ranking, and from a ranking to a mixture."""
