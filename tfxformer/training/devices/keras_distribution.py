"""The same call for devices on JAX: `keras.distribution` shards data and weights, one program sees all of them."""

from __future__ import annotations

import contextlib
import os

import keras
import numpy as np

from tfxformer.backend import processes
from tfxformer.training.devices.layout import BATCH, MODEL, parts_of_a_batch, tensor_parallel

KINDS = ("auto", "cpu", "gpu", "tpu", "multiworker")
# What keras.distribution.initialize reads; on a Cloud TPU pod the addresses are found without.
_CLUSTER = ("KERAS_DISTRIBUTION_JOB_ADDRESSES", "KERAS_DISTRIBUTION_NUM_PROCESSES", "KERAS_DISTRIBUTION_PROCESS_ID")


def distribution(kind: str, argument: str, mesh) -> tuple:
    """Sets Keras' distribution for this process.

    Args:
        kind, argument: the name of `training.strategy`, at its colon: of `KINDS`, and a number of devices or "".
        mesh: (data, model) sizes, or None for data parallelism alone.

    Returns:
        (the distribution, why it is this one); of one device a distribution with one.

    Raises:
        ValueError: for a mesh that does not hold the devices.
        RuntimeError: where the devices are not there.
    """
    if kind == "multiworker" or (kind == "auto" and os.environ.get(_CLUSTER[0])):
        _join()
    devices = _devices(kind, argument)
    found = _data_parallel(devices) if mesh is None else _sharded(devices, mesh)
    keras.distribution.set_distribution(found)
    return found, f"{len(devices)} {devices[0].split(':')[0]} device(s) on JAX"


def _join() -> None:
    missing = [name for name in _CLUSTER if name not in os.environ]
    on_pod = "TPU_WORKER_HOSTNAMES" in os.environ
    if missing and not on_pod:
        raise ValueError(
            f'strategy("multiworker") on JAX finds no {", ".join(missing)}: start every process with the address of '
            "process 0, their number and its own number in these variables; a TPU pod needs none."
        )
    import jax

    if not jax.distributed.is_initialized():
        keras.distribution.initialize()


def _devices(kind: str, argument: str) -> list[str]:
    platform = kind if kind in ("cpu", "gpu", "tpu") else None
    devices = keras.distribution.list_devices(platform)
    count = int(argument) if argument.isdecimal() else len(devices)
    if not devices or count > len(devices) or count < 1 or (argument and not argument.isdecimal()):
        way_out = ""
        if kind == "cpu":
            way_out = (
                f" XLA_FLAGS=--xla_force_host_platform_device_count={argument}, set before JAX starts, makes them."
            )
        raise RuntimeError(
            f'strategy("{kind}{":" if argument else ""}{argument}"): JAX sees {len(devices)} device(s)'
            f"{f': {devices[0]} and on' if devices else ''}.{way_out}"
        )
    return devices[:count]


def _data_parallel(devices: list[str]):
    return keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)


def _sharded(devices: list[str], mesh):
    try:
        data, model = map(int, mesh)
    except (TypeError, ValueError):
        raise ValueError(f"mesh is the sizes (data, model), such as (2, 4), not {mesh!r}.") from None
    if data * model != len(devices):
        raise ValueError(f"A mesh of {data} x {model} wants {data * model} devices, there are {len(devices)}.")
    return tensor_parallel(keras.distribution.DeviceMesh((data, model), (BATCH, MODEL), devices))


def on_devices(batch):
    """A batch in memory on the devices of Keras' distribution, shared among them where its rows divide.

    Of several processes each has the same batch, and gives its own devices their rows.

    Raises:
        ValueError: under a distribution whose processes have each its own rows.
    """
    import jax

    found = keras.distribution.distribution()
    if found is None:
        return jax.device_put(batch)
    parts, alone = parts_of_a_batch(found), processes()[1] == 1
    if not alone and found.auto_shard_dataset:
        raise ValueError(
            f"This {type(found).__name__} shards datasets among the processes itself (auto_shard_dataset), and Resume "
            "and Epochs give each process all rows: make the distribution by training.strategy."
        )

    def put(leaf):
        if leaf is None:
            return None
        axes = [found.batch_dim_name if np.shape(leaf)[0] % parts == 0 else None, *[None] * (np.ndim(leaf) - 1)]
        sharding = keras.distribution.TensorLayout(axes, found.device_mesh).backend_layout
        if alone:
            return jax.device_put(leaf, sharding)
        return jax.make_array_from_callback(np.shape(leaf), sharding, np.asarray(leaf).__getitem__)

    return keras.tree.map_structure(put, batch)


def share_order() -> None:
    """Gives all processes numpy's random state of the first, by which Keras shuffles: they must meet the same batches.

    Nothing where one process trains.
    """
    if processes()[1] == 1:
        return
    from jax.experimental import multihost_utils

    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  (Keras draws from it)
    own = np.concatenate([keys, np.uint32([position, has_gauss]), np.float64([gauss]).view("uint32")])
    shared = np.asarray(multihost_utils.broadcast_one_to_all(own))
    state = (shared[:-4], int(shared[-4]), int(shared[-3]), float(shared[-2:].view("float64")[0]))
    np.random.set_state((name, *state))  # noqa: NPY002


def whole_on_each_process(outputs):
    """In a step: lets every process have the outputs for all rows, which lie on the devices of all."""
    import jax

    found = keras.distribution.distribution()
    if found is None or processes()[1] == 1:
        return outputs
    whole = jax.sharding.NamedSharding(found.device_mesh.backend_mesh, jax.sharding.PartitionSpec())
    return jax.lax.with_sharding_constraint(outputs, whole)


@contextlib.contextmanager
def batches_of_any_size():
    """While it holds, a batch that the devices cannot share, such as an epoch's last, is whole on each of them.

    Keras lays out every batch as the first one, and JAX then refuses one whose rows do not divide.
    """
    found = keras.distribution.distribution()
    if found is None or (processes()[1] > 1 and found.auto_shard_dataset):  # Keras' own way, of datasets alone
        yield
        return
    from keras.src.backend.jax import trainer

    def iterate(self, distribution):
        return map(on_devices, self.data_adapter.get_jax_iterator())

    # Private to Keras, and the only place where a batch meets its layout; tests/backends runs it on both versions.
    before = trainer.JAXEpochIterator._get_distributed_iterator
    trainer.JAXEpochIterator._get_distributed_iterator = iterate
    try:
        yield
    finally:
        trainer.JAXEpochIterator._get_distributed_iterator = before
