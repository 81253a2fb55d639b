"""TVM users' own modules: the passes that find quantized regions in a Relay or a Relax module, compile them as any model
is compiled, and link the result back.

Both IRs are read into one list of calls (`dataflow`), whose quantized regions (`regions`) are written as ONNX models
(`write`, `operators`, `quantizers`): so what an operator means is said once, by the frontend for files. What is not in a
region stays in the user's module as it was.
"""
