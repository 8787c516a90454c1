"""Keeps what native code prints off the user's terminal.

The converter, LiteRT's environments and its delegate log from C++, below `sys.stderr` and `logging`, and none of them
has a level that Python can set; errors come as exceptions. So descriptor 2 is turned away while files are made or
opened, never while one runs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import warnings


class _Shared:
    """A context of the whole process: the first thread enters it, the last one leaves it.

    Two threads that save and restore the same state in turn would leave it as the first one had changed it.
    """

    def __init__(self, make):
        self._make = make
        self._lock = threading.Lock()
        self._inside = 0
        self._context = None
        if hasattr(os, "register_at_fork"):
            lock = self._lock
            os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=self._after_fork)

    def __enter__(self):
        with self._lock:
            if self._inside == 0:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *error):
        with self._lock:
            self._inside = max(self._inside - 1, 0)
            if self._inside == 0 and self._context is not None:
                self._context.__exit__(None, None, None)
                self._context = None

    def _after_fork(self):
        """In a forked process: the parent's threads, which would leave, are not here."""
        if self._inside:
            self._inside = 0
            self._context.__exit__(None, None, None)
            self._context = None
        self._lock.release()


@contextlib.contextmanager
def _descriptor_away():
    with contextlib.suppress(AttributeError, ValueError):  # a program without a terminal, or one that closed it
        sys.stderr.flush()
    try:
        terminal = os.dup(2)
    except OSError:  # closed: nothing is shown anyway
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        with contextlib.suppress(AttributeError, ValueError):
            sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(nowhere)
        os.close(terminal)


@contextlib.contextmanager
def _warnings_away():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_descriptor, _warnings = _Shared(_descriptor_away), _Shared(_warnings_away)


@contextlib.contextmanager
def quiet():
    """Sends the process' standard error to nowhere, and Python's warnings too, while the block runs.

    Any number of threads may be inside at once; when the last one leaves, both are as they were.
    """
    with _descriptor, _warnings:
        yield


@contextlib.contextmanager
def quiet_runtime():
    """Sends the process' standard error to nowhere while a file is opened: LiteRT warns in C++ only."""
    with _descriptor:
        yield


def quiet_exit() -> None:
    """Sends the process' standard error to nowhere for good."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@functools.lru_cache(maxsize=1)
def announce_delegate() -> None:
    """Provokes the one line that LiteRT prints of its delegate in each process, here where nobody sees it.

    Files make their delegates when a signature is first called, in whichever thread; nothing is then left to hide.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    tensors = [schema.TensorT() for _ in range(2)]
    for index, tensor in enumerate(tensors):
        tensor.shape, tensor.buffer, tensor.name = [1], 0, str(index)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ABS
    code.version = 1
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0], [1]
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], [1], [operator]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    with quiet_runtime():
        Interpreter(model_content=bytes(builder.Output())).allocate_tensors()
