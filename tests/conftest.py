"""For all tests."""

import signal

# Where the tests run in the background of a shell, SIGINT arrives ignored, and so it would in the processes that they
# interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
