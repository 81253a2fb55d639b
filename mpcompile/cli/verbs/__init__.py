"""The verbs of the command line, one a file: `arguments(parser)`, `work(args)`. Imports wait until they work."""
