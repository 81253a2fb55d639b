"""Post-training quantization: anyone's float ONNX file and some of its inputs → QONNX, with one bitwidth for all layers or
chosen layer by layer under a budget. Runs float networks in ONNX Runtime; what measures latency is handed in."""
