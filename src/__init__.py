"""Train, tune and submit instance segmentation cascades."""

import sys

from src.cli import signals

# While `python -m src.NAME` imports this package, before its own module. Its imports take seconds,
# and Ctrl-C has to end them well.
if sys.argv[:1] == ["-m"] and (_command := signals.command_of(sys.orig_argv)) is not None:
    signals.install(_command)
