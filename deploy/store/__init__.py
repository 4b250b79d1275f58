"""Artifacts on disk: where they are, written whole, locked, and reused where nothing changed."""
