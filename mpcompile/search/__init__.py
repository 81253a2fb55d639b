"""Bitwidth search in PyTorch: quantizers, methods, objectives over measured latency, retraining, export to QONNX.

What compiles and measures is handed in as functions (`device.SearchDevice`): this room knows neither compiler nor TVM.
"""
