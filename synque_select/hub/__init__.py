"""Models by id: from a hub, from a folder, or from an installed package."""
