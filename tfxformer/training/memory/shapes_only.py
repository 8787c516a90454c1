"""Models without weights: variables that have a shape and no value, so that a large model takes no memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tfxformer.backend import BackendError, backend, deferred, on_jax


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
    with deferred():
        yield
