"""A float ONNX file as a torch module that can be trained: network.py puts it together, layers.py makes what has weights,
operators.py the rest, and activations.py finds functions that exporters wrote in pieces."""
