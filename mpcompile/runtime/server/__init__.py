"""The device side: a server that lends this machine to one host at a time, over TVM's RPC.

A listening loop (serve.py), registered with a tracker where there is one (tracker.py), hands each client that has come in
(door.py) to a process of its own (process.py starts and watches it, session.py is what it runs), within limits. The tracker
(lend.py) lends devices by key; both receive their clients by reception.py. Standard library, psutil, msgspec, numpy and
TVM's runtime: no compiler.
"""
