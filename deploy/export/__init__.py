"""From a torch network to a float ONNX graph that is proved equal to it."""
