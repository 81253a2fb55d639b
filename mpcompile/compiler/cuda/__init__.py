"""Code for CUDA devices: scheduled PrimFuncs to CUDA C by TVM, to cubins by NVRTC. No nvcc, no driver, no device."""
