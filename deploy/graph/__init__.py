"""ONNX graphs: reading them, asking them questions, writing them in another form."""
