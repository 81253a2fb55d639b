"""Regions of operators that run in float, which TVM compiles: the only place where Relax is used.

regions.py    graph → layers, views and regions, in the order in which they run
onnx_ops.py   one FloatOp, a single-node ONNX model → TVM's own operators
emit.py       regions → a Relax module, one function each
lower.py      the module legalised, fused and scheduled
schedule.py   a plain CPU schedule of one function
read.py       a lowered Relax function → a list of calls
"""
