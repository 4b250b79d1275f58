"""Labels and overlays of a user's images."""
