"""What the network is shown: data, preprocessing, and the statistics of its activations."""
