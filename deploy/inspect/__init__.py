"""What is in a graph, what of it ran in 8 bits, and how fast; nothing is changed."""
