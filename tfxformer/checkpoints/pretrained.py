"""`from_pretrained` and `save_pretrained`: a checkpoint folder that transformers opens, both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tfxformer.arguments.keywords import checked
from tfxformer.backend import deferred, processes, whole_value
from tfxformer.checkpoints.families import family_of, text_part
from tfxformer.checkpoints.files import safetensors
from tfxformer.checkpoints.files.bounds import check_layers, check_size
from tfxformer.checkpoints.files.errors import CheckpointError, read_json
from tfxformer.checkpoints.files.folders import open_folder
from tfxformer.checkpoints.files.gguf import is_gguf
from tfxformer.checkpoints.files.hub import resolve
from tfxformer.checkpoints.files.refusals import check_adapter_only, check_quantized
from tfxformer.checkpoints.files.safetensors import Unread, write_folder
from tfxformer.checkpoints.files.scaled import ScaledTensors, scaling_of
from tfxformer.checkpoints.gguf_models import open_gguf
from tfxformer.checkpoints.layout import tensor_of, variables_of_tensors
from tfxformer.checkpoints.loading import LoadReport, is_tied, load_weights, strip_prefix, weights
from tfxformer.checkpoints.variables import initialize
from tfxformer.files import replacing_folder, write_json
from tfxformer.layers.adapters.base import adapted_layers
from tfxformer.models import TransformerConfig
from tfxformer.models.backbone import Backbone
from tfxformer.models.build import make_backbone

CONFIG_FILE = "config.json"
# What the model that a folder held before may have left beside its weights, and would be read with the new ones: how it
# generates, its sentence-transformers modules.
HEAD_FILES = (
    *("generation_config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
    *("[0-9]_Pooling", "[0-9]_Dense", "[0-9]_Normalize"),
)
SAVE_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def has_pooler(tensors, family) -> bool:
    """Whether a checkpoint has the family's pooler."""
    names = strip_prefix(tensors, family)
    return family.pooler is not None and f"{family.pooler}.weight" in names


def open_checkpoint(path) -> tuple[dict, Mapping]:
    """config.json (or what it would say) and the tensors of a checkpoint folder or a GGUF file.

    Raises:
        CheckpointError: for what cannot be read.
    """
    if is_gguf(path):
        return open_gguf(path)
    config_file = Path(path) / CONFIG_FILE
    if not config_file.is_file():
        check_adapter_only(Path(path))
    reference = read_json(config_file)
    scaling = scaling_of(reference)
    if scaling is not None:
        tensors = ScaledTensors(open_folder(path, scaled=True), scaling, path)
        if tensors.scaled:  # what is saved of it again is not quantized: the key goes
            return text_part({key: value for key, value in reference.items() if key != scaling.key}, tensors)
    check_quantized(reference, config_file)
    return text_part(reference, open_folder(path))


def read_model_config(reference: dict, family, tensors, path) -> TransformerConfig:
    """config.json as a TransformerConfig that the tensors can be those of.

    Raises:
        CheckpointError: naming the file, for values that are not implemented, make no sense, or ask for a larger model.
    """
    try:
        check_layers(reference, family, tensors)
        config = family.read_config(reference)
        check_size(reference, config, family, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return config


def load_model(
    folder, make: Callable, *, task: str | None = None, wants_pooler: Callable = lambda config: None
) -> tuple[object, LoadReport]:
    """Builds a model from a checkpoint and fills it.

    Args:
        folder: pathlib.Path of the folder, or of a GGUF file.
        make: (TransformerConfig, reference config.json) -> keras.Model; called while variables stay without values.
        task: name of the head that the model has, or None.
        wants_pooler: TransformerConfig -> whether the model has the family's pooler; None for "where the file does".

    Returns:
        (model, LoadReport).

    Raises:
        CheckpointError: for anything that does not fit.
    """
    reference, tensors = open_checkpoint(folder)
    family = family_of(reference.get("model_type"))
    config = read_model_config(reference, family, tensors, folder)
    wanted = wants_pooler(config)
    pooler = has_pooler(tensors, family) if wanted is None else wanted and family.pooler is not None
    config = config.replace(heads__pooler=pooler, heads__tied=is_tied(config, tensors, family))
    with deferred():
        model = make(config, reference)
    for variable in model.metrics_variables:  # of metrics that a task makes itself: no file holds them
        initialize(variable)
    held = model.checkpoint_model() if hasattr(model, "checkpoint_model") else model
    return model, load_weights(held, tensors, family, config, task)


@checked
def from_pretrained(folder_or_hub_id, *, dtype=None, gradient_checkpointing=False, revision=None) -> Backbone:
    """The bare encoder or decoder of a checkpoint, its family picked by `config.json`.

    Args:
        folder_or_hub_id: a folder with config.json and safetensors (or pytorch_model.bin), a GGUF file, or a hub id.
        dtype: dtype policy, such as "mixed_bfloat16"; variables are float32 under every mixed policy.
        gradient_checkpointing: bool, recompute blocks in the backward pass.
        revision: branch, tag or commit of a hub id; None for its main branch.

    Returns:
        `models.Encoder` or `models.Decoder`, equal to the reference implementation on unpadded positions.

    Raises:
        CheckpointError: for a checkpoint that cannot be read or does not fit its config.
    """

    def make(config, reference):
        return make_backbone(
            config, gradient_checkpointing=gradient_checkpointing, reference_config=reference, dtype=dtype
        )

    model, report = load_model(resolve(folder_or_hub_id, revision), make)
    report.warn()
    return model


def check_no_adapters(model) -> None:
    """Refuses to write a model with an adapter.

    Raises:
        CheckpointError: naming it and the way out.
    """
    if adapters := {layer.adapter.name for layer in adapted_layers(model)}:
        raise CheckpointError(
            f"The model has the adapter {', '.join(sorted(adapters))}, which a checkpoint cannot hold beside its base: "
            "merge() it first, or save it alone (compression.Adapters)."
        )


def reference_tensors(model, config: TransformerConfig, task: str | None, dtype: str = "float32") -> dict:
    """A model's weights as the reference names and lays them out: name -> `safetensors.Unread`."""
    if dtype not in SAVE_DTYPES:
        raise CheckpointError(f"Unknown dtype {dtype!r} to save in; known: {', '.join(SAVE_DTYPES)}.")
    check_no_adapters(model)
    family = family_of(config.family)
    to = safetensors.DTYPES[SAVE_DTYPES[dtype]]
    variables = {
        path: variable
        for path, variable in weights(model).items()
        if config.heads.pooler or not path.startswith("pooler/")
    }
    tensors, prefix = {}, family.prefix_of(task)
    for name, held in variables_of_tensors(family.places(variables, config, task)).items():
        is_pooler = family.pooler is not None and name.startswith(f"{family.pooler}.")
        is_backbone = is_pooler or not family.is_head(name)
        found = [variables[path] for path, _ in held]
        tensors[(prefix if is_backbone else "") + name] = _unread(found, [where for _, where in held], to)
    if family.writes_computed:
        tensors |= {prefix + name: make(config).astype(to) for name, make in family.computed.items()}
    return tensors


def _unread(variables: list, places: list, dtype: np.dtype) -> Unread:
    """The tensor of some variables, which are fetched when it is written."""

    def make() -> np.ndarray:
        return tensor_of([whole_value(one).astype(dtype, copy=False) for one in variables], places)

    return Unread(places[0].tensor_shape(tuple(variables[0].shape)), dtype, make)


@checked
def save_pretrained(
    folder,
    model,
    config: TransformerConfig,
    *,
    task: str | None = None,
    reference_config: dict | None = None,
    changes: dict | None = None,
    dtype: str = "float32",
    max_shard_bytes: int = 5_000_000_000,
) -> Path:
    """Writes a folder that transformers opens: config.json and safetensors, whole or not at all.

    Of several processes all call it, and the first writes; each fetches one tensor at a time.

    In a folder that is there the old state stays until the new one takes its place in one step (`files`); files that
    are no part of a checkpoint stay.

    Args:
        folder: created where it does not exist.
        model: keras.Model whose variables have our paths.
        config: its TransformerConfig; where it says no pooler, the model's is left out.
        task: name of its head, or None for a bare encoder.
        reference_config: the config.json it came from; unknown keys of it pass through.
        changes: further keys for config.json (labels, problem type).
        dtype: "float32", "float16" or "bfloat16" of the file.
        max_shard_bytes: size at which the file is split.
    """
    family = family_of(config.family)
    written = {**family.write_config(config, reference_config), **(changes or {}), "dtype": dtype}
    written.pop("torch_dtype", None)  # the old spelling of dtype would contradict it
    written["architectures"] = [family.architecture_of(config, task)]
    tensors = reference_tensors(model, config, task, dtype)
    if processes()[0] > 0:
        for tensor in tensors.values():
            np.asarray(tensor)  # the first process cannot have the parts of this one's devices alone
        return Path(folder).expanduser()
    with replacing_folder(folder, HEAD_FILES) as new:
        write_folder(new, tensors, max_shard_bytes)
        write_json(new / CONFIG_FILE, written, indent=2, sort_keys=True)
    return Path(folder).expanduser()
