"""One call for what trains on many devices, a `tf.distribute` strategy or a `keras.distribution`, that says which."""

from __future__ import annotations

import json
import os

from tfxformer.arguments.keywords import checked
from tfxformer.backend import BackendError, on_jax
from tfxformer.backend import tensorflow as tf
from tfxformer.training.devices.keras_distribution import KINDS, distribution
from tfxformer.training.devices.layout import parts_of_a_batch

_TPU_WAY_OUT = (
    "This TensorFlow ({version}) has no TPU support. On Colab choose a TPU runtime, and install the pinned list in a "
    "fresh runtime, before TensorFlow is imported: pip install -r requirements-tpu.txt (tensorflow-tpu==2.20.0 with "
    "libtpu<=0.0.30; stock tensorflow must not be installed beside it)."
)


@checked
def strategy(name: str = "auto", mesh=None):
    """The strategy to build and compile a model under; prints one line saying what it is and why.

    ```python
    with training.strategy("auto").scope():
        model = ...
        model.compile(...)
    model.fit(...)
    ```

    On JAX it is a `keras.distribution` (`DataParallel`, or `ModelParallel` with a mesh), which is set for the process
    as Keras wants it.

    Args:
        name: one of
            - "auto": the cluster of TF_CONFIG, else the TPU, else all GPUs, else the CPU, whichever is there; on JAX
              all devices that it sees, and the other processes of KERAS_DISTRIBUTION_JOB_ADDRESSES;
            - "cpu" or "cpu:N": one, or N logical devices of this machine's processor, to try out what needs replicas;
            - "gpu" or "gpu:N": all GPUs, or the first N;
            - "multiworker": the workers of TF_CONFIG (on JAX of KERAS_DISTRIBUTION_*), which start one process each;
            - "tpu" or "tpu:NAME": this machine's TPU, or a Cloud TPU by name or address; on JAX "tpu" or "tpu:N".
        mesh: (data, model) numbers of devices, on JAX alone: weights are split over the second, see `layout`.

    Returns:
        `tf.distribute.Strategy`; on JAX `keras.distribution.Distribution`.

    Raises:
        ValueError: for an unknown name, a TF_CONFIG that is absent or wrong, or a mesh of other numbers of devices.
        RuntimeError: where the devices are not there, or TensorFlow has started without them.
        BackendError: for a mesh on TensorFlow.
    """
    kind, _, argument = name.partition(":")
    if kind not in KINDS or (argument and kind in ("auto", "multiworker")):
        raise ValueError(
            f'strategy({name!r}) is unknown: give "auto", "cpu", "cpu:2", "gpu", "gpu:2", "multiworker", "tpu" or '
            '"tpu:NAME".'
        )
    if on_jax():
        found, why = distribution(kind, argument, mesh)
        replicas = parts_of_a_batch(found)
    else:
        if mesh is not None:
            raise BackendError(
                f"A mesh of {mesh} splits weights over devices, which Keras does on JAX (KERAS_BACKEND=jax); a "
                "strategy of TensorFlow copies them: leave out mesh."
            )
        makers = {"auto": _auto, "cpu": _cpu, "gpu": _gpu, "multiworker": _multiworker, "tpu": _tpu}
        found, why = makers[kind](argument)
        replicas = found.num_replicas_in_sync
    print(f"strategy({name!r}): {type(found).__name__.lstrip('_')}, {replicas} replica(s): {why}", flush=True)
    return found


def _auto(_):
    if len(_workers()) > 1:
        return _multiworker("")
    if _tpu_here():
        return _tpu("")
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        return _gpu("")
    where = "one GPU" if gpus else "no GPU, no TPU"
    return tf.distribute.get_strategy(), f"no strategy is needed ({where}, no cluster in TF_CONFIG)"


def _count(argument: str, kind: str, default: int) -> int:
    if argument and not (argument.isdecimal() and int(argument) > 0):
        raise ValueError(f'strategy("{kind}:{argument}"): what follows "{kind}:" is the number of devices.')
    return int(argument) if argument else default


def _cpu(argument):
    count = _count(argument, "cpu", 1)
    if count == 1:
        return tf.distribute.OneDeviceStrategy("/cpu:0"), "one CPU was asked for"
    processor = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:  # TensorFlow has its devices already
        there = len(tf.config.list_logical_devices("CPU"))
        if there < count:
            raise RuntimeError(
                f'strategy("cpu:{count}") must be asked for before TensorFlow uses its devices, which it has (it has '
                f"{there} logical CPU): make it the first call of the program, before any model, tensor or dataset."
            ) from error
    devices = [f"/cpu:{index}" for index in range(count)]
    return tf.distribute.MirroredStrategy(devices), f"the processor as {count} logical devices"


def _gpu(argument):
    gpus = tf.config.list_physical_devices("GPU")
    count = _count(argument, "gpu", len(gpus))
    if not gpus or count > len(gpus):
        raise RuntimeError(
            f"strategy: {count or 'all'} GPU(s) were asked for, TensorFlow {tf.__version__} sees {len(gpus)}. See "
            'nvidia-smi and CUDA_VISIBLE_DEVICES; with CUDA from pip: pip install "tensorflow[and-cuda]".'
        )
    return tf.distribute.MirroredStrategy([f"/gpu:{index}" for index in range(count)]), f"{count} of {len(gpus)} GPU(s)"


def _workers() -> list[str]:
    """The addresses of TF_CONFIG's workers, the chief first; [] without a cluster."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return []
    try:
        cluster = json.loads(text).get("cluster", {})
        return [*cluster.get("chief", []), *cluster.get("worker", [])]
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"TF_CONFIG is not the JSON of a cluster: {text!r}.") from error


_CONFIG_WAY_OUT = (
    'Every worker is started with TF_CONFIG=\'{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": '
    '"worker", "index": 0}}\', the index its own.'
)


def _multiworker(_):
    workers = _workers()
    if not workers:
        raise ValueError(f'strategy("multiworker") finds no workers in TF_CONFIG. {_CONFIG_WAY_OUT}')
    task = json.loads(os.environ["TF_CONFIG"]).get("task") or {}
    cluster = json.loads(os.environ["TF_CONFIG"])["cluster"]
    index = task.get("index")
    if task.get("type") not in ("chief", "worker") or not isinstance(index, int):
        raise ValueError(f"TF_CONFIG says of this worker only {task or 'nothing'}. {_CONFIG_WAY_OUT}")
    if not 0 <= index < len(cluster.get(task["type"], [])):
        raise ValueError(f"TF_CONFIG: this is {task['type']} {index}, of {cluster.get(task['type'], [])}.")
    try:
        found = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RuntimeError(
            'strategy("multiworker") must be asked for before TensorFlow uses its devices: make it the first call of '
            f"the program. TensorFlow says: {error}"
        ) from error
    return found, f"{task['type']} {index} of {len(workers)} in TF_CONFIG"


def _tpu_here() -> bool:
    """Whether this process is told of a TPU, or TensorFlow sees one."""
    return bool(
        os.environ.get("TPU_NAME") or os.environ.get("COLAB_TPU_ADDR") or tf.config.list_physical_devices("TPU")
    )


def _tpu(argument):
    name = argument or os.environ.get("TPU_NAME") or "local"
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        supported = "ConfigureDistributedTPU" not in str(error)
        way_out = "Is the TPU there and idle?" if supported else _TPU_WAY_OUT.format(version=tf.__version__)
        raise RuntimeError(f"strategy: no TPU {name!r}. {way_out} TensorFlow says: {str(error)[:300]}") from error
    return tf.distribute.TPUStrategy(resolver), f"TPU {name!r}"
