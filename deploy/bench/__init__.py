"""What quantization costs and gives, ours and others', in ratios to the plain forward pass."""
