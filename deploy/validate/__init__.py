"""From graphs and images to figures: mIoU, fidelity to torch, latency."""
