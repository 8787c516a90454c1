"""What the workers of a cluster tell each other around a fit: whether they train the same, and that one is gone."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import re
import weakref
from collections.abc import Iterator

import keras
import numpy as np

from tfxformer import __version__
from tfxformer.backend import ONE_PROGRAM, backend, on_jax, processes, strategy_of
from tfxformer.backend import tensorflow as tf

_SECONDS = 600  # that a worker waits for the others to come to the same fit
_BYTES = 4096  # what each tells
# Of tf.errors, what a collective raises whose other side is gone.
_LOST = ("UnavailableError", "AbortedError", "DeadlineExceededError", "CancelledError", "InternalError")


class LostWorkerError(RuntimeError):
    """Another worker of the cluster does not answer any more."""


def is_cluster(strategy) -> bool:
    """Whether other processes train with this one."""
    if strategy is ONE_PROGRAM:
        return processes()[1] > 1
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and len(_tasks(strategy)) > 1


def _tasks(strategy) -> list[str]:
    if strategy is ONE_PROGRAM:
        return [f"process {index}" for index in range(processes()[1])]
    cluster = strategy.cluster_resolver.cluster_spec().as_dict()
    return [*cluster.get("chief", []), *cluster.get("worker", [])]


def is_chief(strategy) -> bool:
    """Whether this process is the one that writes files."""
    if not is_cluster(strategy):
        return True
    if strategy is ONE_PROGRAM:
        return processes()[0] == 0
    resolver = strategy.cluster_resolver
    has_chief = bool(resolver.cluster_spec().as_dict().get("chief"))
    return resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0)


def of_all_replicas(strategy, local: list) -> np.ndarray:
    """The values of all replicas, of every worker, in the order of their ids: [replicas, ...].

    Args:
        strategy: that of the model; every worker calls this at the same time.
        local: this process' replicas' values, numpy arrays of one shape.
    """
    if not is_cluster(strategy):
        return np.stack(local)
    if strategy is ONE_PROGRAM:
        from jax.experimental import multihost_utils

        return np.concatenate(np.asarray(multihost_utils.process_allgather(np.stack(local))))
    given = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(local[context.replica_id_in_sync_group % len(local)][None])
    )
    return strategy.experimental_local_results(_gathering(strategy)(given))[0].numpy()


_FUNCTIONS = weakref.WeakKeyDictionary()  # strategy -> its function, traced once for each shape


def _gathering(strategy):
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_SECONDS)

    def gather(value):
        # An argument carries no device, which the collective needs ("destinations can not be empty").
        return tf.distribute.get_replica_context().all_gather(tf.identity(value), 0, options)

    if strategy not in _FUNCTIONS:
        kept = weakref.ref(strategy)
        _FUNCTIONS[strategy] = tf.function(lambda value: kept().run(gather, args=(value,)), autograph=False)
    return _FUNCTIONS[strategy]


def any_worker(strategy, flag: bool) -> bool:
    """Whether the flag is set on any worker; all call it at the same time."""
    if not is_cluster(strategy):
        return flag
    return bool(of_all_replicas(strategy, [np.array(flag, "int32")] * len(_local(strategy))).any())


def _local(strategy) -> tuple:
    """The ids of this process' replicas; on JAX one for the process."""
    if strategy is ONE_PROGRAM:
        return (processes()[0],)
    ids = strategy.experimental_distribute_values_from_function(lambda context: context.replica_id_in_sync_group)
    return strategy.experimental_local_results(ids)


def local_rows(strategy, rows: np.ndarray) -> list[np.ndarray]:
    """Of [replicas, ...] the values of this process' replicas."""
    return [rows[int(index)] for index in _local(strategy)]


def check_workers(model, told: dict) -> None:
    """Compares what workers are about to train; nothing without a cluster.

    Args:
        model: built or not; its weights and optimizer are compared too, and the versions of the packages.
        told: further things, name -> JSON value.

    Raises:
        ValueError: on every worker, naming what differs.
        LostWorkerError: where another one does not come to the same fit within ten minutes.
    """
    strategy = strategy_of(model)
    if not is_cluster(strategy):
        return
    told = {
        "tfxformer": __version__,
        "keras": keras.__version__,
        **_backend_version(),
        "weights": [[plain_path(v.path), list(v.shape), v.dtype] for v in model.variables],
        "optimizer": optimizer_config(model),
        **told,
    }
    text = json.dumps({name: _short(value) for name, value in told.items()}).encode()
    own = np.frombuffer(text.ljust(_BYTES), "uint8").astype("int32")
    with naming_lost_workers(strategy):
        rows = of_all_replicas(strategy, [own] * len(_local(strategy)))
    workers = rows[:: len(rows) // len(_tasks(strategy))].astype("uint8")
    found = [json.loads(row.tobytes()) for row in workers]
    differing = [
        f"{name} is {found[0].get(name)} on worker 0 and {other.get(name)} on worker {index}"
        for index, other in enumerate(found)
        for name in sorted({*found[0], *other})
        if found[0].get(name) != other.get(name)
    ]
    if differing:
        raise ValueError(
            f"The workers would not train the same: {'; '.join(differing)}. Start all of them with the same code, "
            "arguments and data."
        )


def _backend_version() -> dict[str, str]:
    return {backend(): importlib.import_module(backend()).__version__}


def check_batch_size(strategy, x, batch_size) -> None:
    """Refuses a batch that a TPU's replicas cannot share; the other strategies split any (the first get one more).

    Raises:
        ValueError: naming the next sizes that do.
    """
    if strategy is ONE_PROGRAM or not isinstance(strategy, tf.distribute.TPUStrategy):
        return
    replicas, size = strategy.num_replicas_in_sync, batch_size
    if isinstance(x, tf.data.Dataset):
        size = next((spec.shape[0] for spec in tf.nest.flatten(x.element_spec) if len(spec.shape)), None)
        if size is None:
            raise ValueError("A TPU needs batches of one static size: dataset.batch(size, drop_remainder=True).")
    if (size or 32) % replicas:
        less = (size or 32) // replicas * replicas
        raise ValueError(
            f"A batch of {size or 32} does not divide by the TPU's {replicas} replicas, which need equal static "
            f"shapes: take {f'{less} or ' if less else ''}{less + replicas}."
        )


def replica_rows(strategy, x, batch_size) -> int | None:
    """How many rows a replica's batches have, the last one aside; None where only the data itself can say."""
    if strategy is ONE_PROGRAM or hasattr(x, "element_spec") or isinstance(x, (keras.utils.PyDataset, Iterator)):
        return None
    return -(-(batch_size or 32) // strategy.num_replicas_in_sync)


def _short(value) -> str:
    """A value as it is told: long ones as their hash."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 48 else f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def plain_path(path: str) -> str:
    """A variable's path without the numbers that Keras counts layers of one process by."""
    return re.sub(r"_\d+(?=_|/|$)", "", path)


def optimizer_config(model) -> dict | None:
    """The optimizer's class and settings but for what training changes: a constant rate, and the factor on one."""
    if model.optimizer is None:
        return None
    serialize = getattr(model, "serialize_optimizer", None)
    config = serialize() if serialize else keras.saving.serialize_keras_object(model.optimizer)
    return json.loads(json.dumps(_settled({"class": config["class_name"], **config["config"]}), default=str))


def _settled(value):
    if isinstance(value, dict):
        if value.get("class_name") == "Scaled":  # what `Recover` has made of the schedule
            return _settled(value["config"]["schedule"])
        changing = {name for name in ("learning_rate",) if isinstance(value.get(name), (int, float))}
        return {name: _settled(entry) for name, entry in value.items() if name not in {"name", *changing}}
    return [_settled(entry) for entry in value] if isinstance(value, (list, tuple)) else value


@contextlib.contextmanager
def naming_lost_workers(strategy, way_out: str = ""):
    """Says plainly that another worker is gone, where the backend says that a collective failed.

    Raises:
        LostWorkerError: with the backend's message.
    """
    if not is_cluster(strategy):
        yield
        return
    try:
        yield
    except _lost() as error:
        said = str(error).split("\n", maxsplit=1)[0][:300]
        raise LostWorkerError(
            f"Another of the {len(_tasks(strategy))} workers has ended or does not answer: see its output for why. "
            f"Start all workers again.{way_out} {backend()} says: {said}"
        ) from error


def _lost() -> tuple:
    """What a collective raises whose other side is gone."""
    if on_jax():
        import jax

        return (jax.errors.JaxRuntimeError,)
    return tuple(getattr(tf.errors, name) for name in _LOST)
