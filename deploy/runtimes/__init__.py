"""What executes a graph: torch, onnxruntime and OpenVINO behind one call from image to logits."""
