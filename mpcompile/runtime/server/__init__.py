"""The device side: a server that lends this machine to one host at a time, over TVM's RPC.

A listening loop (serve.py), registered with TVM's tracker where there is one (tracker.py), hands each connection to a
process of its own (process.py starts and watches it, session.py is what it runs), within limits. Standard library,
psutil, numpy and TVM's runtime: no compiler.
"""
