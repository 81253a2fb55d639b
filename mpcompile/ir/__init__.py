"""What a network is, before anything is known of kernels or machines: grids and planes of integers, the normalised graph,
fused layers, the stored formats of tensors, the static plan. numpy only; every other room may use it."""
