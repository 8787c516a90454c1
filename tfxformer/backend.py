"""The one place that knows which backend Keras runs on, and what only TensorFlow does.

Layers, models, checkpoints, text, data, tasks, generation and most of compression are written in `keras.ops`, and run
on TensorFlow and on JAX, there without TensorFlow installed. What stands on TensorFlow itself (`tf.distribute`,
tfmot's pruning, quantization-aware training, TFRecord files, export) takes it from here, imported when it is first
used, and begins with `needs_tensorflow`, which says the way out in one sentence.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
from collections.abc import Iterator
from types import ModuleType

import numpy as np

from tfxformer.extras import is_installed, needs

BACKENDS = ("tensorflow", "jax")
_PENDING = "uninitialized_variables"  # Keras' own name
EXPORT_WAY_OUT = (
    "save the model here (save_pretrained, or save to a .keras file), and open it with Keras on TensorFlow "
    '(pip install "tfxformer[train]", KERAS_BACKEND=tensorflow)'
)


class BackendError(RuntimeError):
    """What was asked for runs on another backend of Keras than the one that is set."""


class _OnFirstUse:
    """A module that is imported when its first attribute is asked for."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str):
        return getattr(self._module, attribute)

    @functools.cached_property
    def _module(self) -> ModuleType:
        needs("This", self._name)
        return importlib.import_module(self._name)


tensorflow = _OnFirstUse("tensorflow")


def needs_keras(use: str, *packages: str) -> None:
    """Says which pip line helps, where Keras, the backend that it is set to, or one of some packages is missing.

    Args:
        use: what needs them, the beginning of a sentence.
        packages: as `needs` takes them.

    Raises:
        ModuleNotFoundError: for the first that is not installed.
    """
    needs(use, "keras", *packages)
    try:
        import keras  # noqa: F401
    except ModuleNotFoundError as error:  # of the backend, which Keras imports
        missing = (error.name or "").partition(".")[0]
        other = next((name for name in BACKENDS if name != missing and is_installed(name)), None)
        if missing not in BACKENDS:
            raise
        if other is None:
            needs(use, missing)
        raise ModuleNotFoundError(
            f"{use} needs {missing}, the backend that Keras is set to, which is not installed; {other} is: set the "
            f"environment variable KERAS_BACKEND={other} before Python starts.",
            name=missing,
        ) from error


def backend() -> str:
    """The backend of Keras: "tensorflow" or "jax"."""
    import keras

    return keras.backend.backend()


def on_tensorflow() -> bool:
    """Whether Keras runs on TensorFlow."""
    return backend() == "tensorflow"


def on_jax() -> bool:
    """Whether Keras runs on JAX."""
    return backend() == "jax"


@functools.cache
def only_cpus() -> bool:
    """Whether Keras runs on TensorFlow, and TensorFlow has nothing but CPUs."""
    return on_tensorflow() and all(device.device_type == "CPU" for device in tensorflow.config.list_physical_devices())


def needs_tensorflow(use: str, way_out: str = EXPORT_WAY_OUT) -> None:
    """Refuses, in one sentence, what only TensorFlow does.

    Args:
        use: what was asked for, the beginning of a sentence.
        way_out: what to do instead.

    Raises:
        BackendError: where Keras runs on another backend.
    """
    if not on_tensorflow():
        raise BackendError(f"{use} needs Keras on TensorFlow, and it runs on {backend()}: {way_out}.")


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """A scope in which variables are created without values, but with a shape and the initializer that has one."""
    import keras
    from keras.src.backend.common import global_state

    pending = list(global_state.get_global_attribute(_PENDING, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Keras keeps a list of variables without values, and gives them theirs at the end of the next scope that
        # comes along, whoever opened it: ours must not be in it.
        global_state.set_global_attribute(_PENDING, pending)


# What kernels may know of the step that is traced around them.
COMPILED_AHEAD = contextvars.ContextVar("compiled_ahead", default=False)
BATCH_ROWS = contextvars.ContextVar("batch_rows", default=None)


@contextlib.contextmanager
def compiled_ahead(wanted: bool = True) -> Iterator[None]:
    """The step that is traced inside is about to run: its kernels are compiled from the moment they are met.

    Args:
        wanted: False to compile them when they are run.
    """
    token = COMPILED_AHEAD.set(wanted)
    try:
        yield
    finally:
        COMPILED_AHEAD.reset(token)


@contextlib.contextmanager
def batches_of(rows: int | None) -> Iterator[None]:
    """Steps that are traced inside get batches of so many rows, the last one aside; their shapes may leave it open."""
    token = BATCH_ROWS.set(rows)
    try:
        yield
    finally:
        BATCH_ROWS.reset(token)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Inside, attention is traced by matrix products, which can be counted: what `disable_flash_attention` says."""
    import keras

    before = keras.config.is_flash_attention_enabled()
    keras.config.disable_flash_attention()
    try:
        yield
    finally:
        if before is not False:
            keras.config.enable_flash_attention()


class _OneProgram:
    """What stands for a `tf.distribute` strategy on JAX, where one program sees all devices and Keras shards it."""

    num_replicas_in_sync = 1
    scope = staticmethod(contextlib.nullcontext)

    @staticmethod
    def experimental_local_results(value) -> tuple:
        return (value,)


ONE_PROGRAM = _OneProgram()


def strategy_of(model):
    """The `tf.distribute` strategy that a model was made under; on JAX what does the same for one program."""
    return model.distribute_strategy if on_tensorflow() else ONE_PROGRAM


def processes() -> tuple[int, int]:
    """(the number of this process, how many run one program together) on JAX; (0, 1) elsewhere.

    Not to be asked before `keras.distribution.initialize`: JAX has its devices from then on.
    """
    if not on_jax():
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def is_whole_here(variable) -> bool:
    """Whether this process has all parts of a variable."""
    value = variable.value
    return not on_jax() or value.is_fully_addressable or value.is_fully_replicated


def whole_value(variable) -> np.ndarray:
    """A variable's whole value, wherever its parts are; nothing of it stays on the host with the variable.

    On JAX an array keeps what `np.asarray` made of it, so that a model which was saved would be on the host too, whole.
    Of a variable that is split over several hosts, every process must ask at once, and each gets all of it.
    """
    value = variable.value
    if not on_jax():
        return np.asarray(value)
    import jax

    if value.is_fully_replicated:
        parts = [value.addressable_data(0)]
        return np.asarray(jax.make_array_from_single_device_arrays(value.shape, parts[0].sharding, parts))
    if not value.is_fully_addressable:
        whole = jax.sharding.NamedSharding(value.sharding.mesh, jax.sharding.PartitionSpec())
        return np.asarray(jax.jit(lambda x: x, out_shardings=whole)(value).addressable_data(0))
    parts = [shard.data for shard in value.addressable_shards]
    return np.asarray(jax.make_array_from_single_device_arrays(value.shape, value.sharding, parts))
