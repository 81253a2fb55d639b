"""CUDA devices: what a bundle holds for them, and the driver that runs it. numpy and libcuda.so.1; no TVM, no toolkit."""
