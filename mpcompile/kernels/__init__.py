"""TE definitions of the kernel families, packing and epilogue; schedules are in mpcompile.schedules."""
