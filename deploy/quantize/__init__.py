"""Graph to graph: half precision and 8-bit integers."""
