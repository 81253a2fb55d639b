"""Any `nn.Module`, as it is, becomes a network whose bits can be searched, and a QONNX file.

Nothing of the module is rewritten: one eager pass sees which layers run and what they read; weights are quantized by
parametrizations, inputs by hooks; files are written by torch.onnx, which traces with torch.export.
"""
