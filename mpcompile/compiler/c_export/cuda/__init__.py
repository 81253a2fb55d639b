"""A compiled network for CUDA devices as C: one source file over the driver API, and its data. No toolkit, no TVM."""
