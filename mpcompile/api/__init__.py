"""What `mpcompile.NAME` gives and what the verbs of the command line call: each function in the module of its name. The
rooms meet here; none of them knows this one."""
