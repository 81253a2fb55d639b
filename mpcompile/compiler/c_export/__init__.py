"""A compiled network as a static library with a header: nothing of TVM or Python at run time."""
