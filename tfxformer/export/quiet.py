"""Keeps what native code prints off the user's terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings


@contextlib.contextmanager
def quiet():
    """Sends the process' standard error to nowhere, and Python's warnings too, while the block runs.

    The converter and LiteRT log from C++, below `sys.stderr` and `logging`; errors come as exceptions.
    """
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(nowhere)
        os.close(terminal)
