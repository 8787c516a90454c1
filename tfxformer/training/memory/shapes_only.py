"""Models without weights: variables that have a shape and no value, so that a large model takes no memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tfxformer.backend import BackendError, backend, on_jax


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """While it holds, variables are made without values: for `tpu_check` and `fit_estimate` of what is too large here.

    Such a variable has a shape, a dtype and an initializer, which is asked again each time that the value is read.

    Raises:
        BackendError: on TensorFlow, whose steps hold their variables.
    """
    if not on_jax():
        raise BackendError(
            f"Models of shapes only need Keras on JAX, and it runs on {backend()}: set the environment variable "
            "KERAS_BACKEND=jax before Python starts."
        )
    from keras.src.backend.jax import core

    def initialize_later(self, initializer):
        # What Keras itself has between making a variable inside a traced function and giving it a value.
        self._value, self._initializer = None, initializer

    # Private to Keras, and the only place where an initializer is called; tests run it on both versions.
    before = core.JaxVariable._initialize_with_initializer
    core.JaxVariable._initialize_with_initializer = initialize_later
    try:
        yield
    finally:
        core.JaxVariable._initialize_with_initializer = before
