"""For all tests."""

import os
import signal

# Where the tests run in the background of a shell, SIGINT arrives ignored, and so it would in the processes that they
# interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Help is wrapped, and tables are coloured, as in a pipe, whatever terminal or service the tests are started from.
os.environ["COLUMNS"] = "80"
for name in ("FORCE_COLOR", "MPCOMPILE_TRACKER"):
    os.environ.pop(name, None)
