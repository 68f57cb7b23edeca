"""The one exception for a user's mistake; entry points print it as one line, no traceback."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input from a user: a file, a row or a configuration value.

    The message names the file, row or key, the bad value, and what is legal.
    """
