"""Folders of sentence-transformers: the list of their modules as data, read and written as read.

`modules.json` lists an encoder, a pooling, and what follows it (dense layers, vectors of length one), each with its own
folder; two further files hold the longest text and the prompts. Versions 2 to 6 write the pooling in two forms and
the modules under two paths; both are read, and what is not changed is written in the form that was read.

Source: sentence-transformers 6.2, https://github.com/huggingface/sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfxformer.checkpoints.files import safetensors
from tfxformer.checkpoints.files.errors import CheckpointError, read_json
from tfxformer.checkpoints.files.folders import open_folder
from tfxformer.checkpoints.loading import unwrapped
from tfxformer.files import write_json

MODULES_FILE, SETTINGS_FILE, ENCODER_FILE = (
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
)
POOLING_FOLDER = "1_Pooling"  # where the pooling lies by habit
_PACKAGE = "sentence_transformers."
_LEGACY = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_POOLING_KEYS = (*_LEGACY, "word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt")
# torch's classes of activations by our names.
_ACTIVATIONS = {
    "linear.Identity": "linear",
    "activation.Tanh": "tanh",
    "activation.ReLU": "relu",
    "activation.GELU": "gelu",
    "activation.SiLU": "silu",
    "activation.Sigmoid": "sigmoid",
    "activation.Mish": "mish",
}
_TORCH = "torch.nn.modules."
# What an encoder's own file may say without an effect on the vectors, and what else must be as given.
_IGNORED = (
    "transformer_task",
    "module_output_name",
    "modality_config",
    "unpad_inputs",
    "max_seq_length",
    "do_lower_case",
)
_WANTED = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
_OUTPUT = "sentence_embedding"
_DIMENSIONS = "truncate_dim"


@dataclass(frozen=True)
class SentenceModules:
    """What a folder says of an embedder.

    Attributes:
        pooling: kinds of `models.pooling.POOLINGS`.
        modules: what follows the pooling, each a dict: {"kind": "normalize"} or {"kind": "dense", "units",
            "activation", "use_bias"}.
        max_length: tokens of the longest text, or None.
        lowercase: whether texts are lowercased first.
        prompts, default_prompt_name, include_prompt: see `data.prompts.Prompts`.
        dimensions: how many of a vector's first numbers are kept, or None for all.
    """

    pooling: tuple[str, ...] = ("mean",)
    modules: tuple[Mapping[str, Any], ...] = ()
    max_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    include_prompt: bool = True
    dimensions: int | None = None


def encoder_folder(folder: Path) -> Path:
    """Where the encoder lies: the folder itself, or (of older versions) one below it, such as 0_Transformer."""
    if (folder / MODULES_FILE).is_file():
        first = _listed(folder / MODULES_FILE)[0]
        return folder / _inside(first.get("path", ""), folder / MODULES_FILE)
    return folder


def read_files(folder: Path) -> dict[str, Any]:
    """The files that describe an embedder, as JSON, by path in the folder; none where it is no such folder.

    Raises:
        CheckpointError: for a file that cannot be read, or is missing.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        pooling = folder / POOLING_FOLDER / "config.json"
        return {f"{POOLING_FOLDER}/config.json": read_json(pooling)} if pooling.is_file() else {}
    listed = _listed(path)
    files: dict[str, Any] = {MODULES_FILE: [{**listed[0], "path": ""}, *listed[1:]]}
    if (folder / SETTINGS_FILE).is_file():
        files[SETTINGS_FILE] = read_json(folder / SETTINGS_FILE)
    for own in sorted(encoder_folder(folder).glob("sentence_*_config.json")):
        files.setdefault(ENCODER_FILE, read_json(own))
    for module in listed[1:]:
        inside = _inside(module.get("path", ""), path)
        if (folder / inside / "config.json").is_file():
            files[f"{inside}/config.json"] = read_json(folder / inside / "config.json")
    return files


def describe(files: Mapping[str, Any], name="modules.json") -> SentenceModules:
    """What the files of `read_files` say.

    Args:
        files: as `read_files` gives them.
        name: what errors call the folder.

    Raises:
        CheckpointError: for modules or settings that are not implemented here: vectors would be others in silence.
    """
    listed = files.get(MODULES_FILE) or [{"type": f"{_PACKAGE}models.Transformer"}, _POOLING_BY_HABIT]
    kinds = [_kind(module, name) for module in listed]
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Dense", "Normalize"}:
        raise CheckpointError(
            f"{name} lists {', '.join(kinds)}: tfxformer reads a Transformer, a Pooling, and any Dense and Normalize "
            "after them; with others its vectors would be wrong. Take the bare encoder by tfxformer.from_pretrained."
        )
    settings, encoder = files.get(SETTINGS_FILE, {}), files.get(ENCODER_FILE, {})
    if (task := settings.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        raise CheckpointError(
            f"{name} holds a {task} of sentence-transformers, which is no embedder of one vector a text. A reranker "
            "(CrossEncoder) opens by tasks.TextClassifier."
        )
    _check_encoder(encoder, name)
    pooling, include_prompt = _pooling(files.get(f"{listed[1]['path']}/config.json", {}), name)
    prompts = {key: value or "" for key, value in (settings.get("prompts") or {}).items()}
    longest = _positive(encoder.get("max_seq_length"), f"{name}: {ENCODER_FILE} says max_seq_length")
    return SentenceModules(
        pooling=pooling,
        modules=tuple(
            {"kind": "normalize"} if kind == "Normalize" else _dense(files.get(f"{module['path']}/config.json"), name)
            for kind, module in zip(kinds[2:], listed[2:], strict=True)
        ),
        max_length=longest,
        lowercase=bool(encoder.get("do_lower_case", False)),
        prompts=prompts,
        default_prompt_name=settings.get("default_prompt_name"),
        include_prompt=include_prompt,
        dimensions=_positive(settings.get(_DIMENSIONS), f"{name}: {SETTINGS_FILE} says {_DIMENSIONS}"),
    )


def similarity_of(files: Mapping[str, Any]) -> str:
    """By which measure an embedder's vectors are compared, a name of `data.retrieval.SIMILARITIES`."""
    return files.get(SETTINGS_FILE, {}).get("similarity_fn_name") or "cosine"


def read_dense(folder: Path, files: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
    """The weights of the dense layers in their order: "kernel" [in, out], and "bias" [out] where there is one.

    Raises:
        CheckpointError: for weights that are missing, unknown, or that their reader refuses.
    """
    found = []
    for module in files.get(MODULES_FILE, ()):
        if module["type"].rpartition(".")[2] != "Dense":
            continue
        tensors = open_folder(folder / module["path"])
        arrays = {unwrapped(name): np.asarray(tensors[name], "float32") for name in tensors}
        if unknown := sorted(set(arrays) - {"linear.weight", "linear.bias"}) or "linear.weight" not in arrays:
            raise CheckpointError(
                f"{folder / module['path']} has the tensors {', '.join(arrays)}; wanted are linear.weight and, where "
                f"there is a bias, linear.bias{'' if unknown is True else f'; {unknown[0]} would be dropped'}."
            )
        bias = {"bias": arrays["linear.bias"]} if "linear.bias" in arrays else {}
        found.append({"kernel": arrays["linear.weight"].T, **bias})
    return found


def write(folder: Path, said: SentenceModules, files: Mapping[str, Any], width: int, dense: list[dict]) -> None:
    """Writes the files of an embedder: as read where they say the same, else anew.

    Args:
        folder: of the encoder's checkpoint; the caller makes the whole appear at once (`files.replacing_folder`).
        said: what the files must say.
        files: those it was read from, as `read_files` gave them; empty for an embedder that was made here.
        width: int D, the encoder's.
        dense: the weights, as `read_dense` gives them.
    """
    files = dict(files)
    if MODULES_FILE not in files or _shape(describe(files)) != _shape(said):
        kept = {name: files[name] for name in (SETTINGS_FILE, ENCODER_FILE) if name in files}
        files = {**kept, **_module_files(said, width)}
    _update(files, said)
    folders = [module["path"] for module in files[MODULES_FILE] if module["type"].rpartition(".")[2] == "Dense"]
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(folder / name, content, indent=2)
    for inside, arrays in zip(folders, dense, strict=True):
        tensors = {"linear.weight": np.ascontiguousarray(arrays["kernel"].T)}
        tensors |= {"linear.bias": arrays["bias"]} if "bias" in arrays else {}
        safetensors.write(folder / inside / safetensors.SINGLE_FILE, tensors)


# ---- the parts ------------------------------------------------------------------------------------------------

_POOLING_BY_HABIT = {"path": POOLING_FOLDER, "type": f"{_PACKAGE}models.Pooling"}


def _positive(value, what: str) -> int | None:
    """A stated number, None where there is none."""
    if value is not None and (type(value) is not int or value < 1):
        raise CheckpointError(f"{what}={value!r}, no positive whole number.")
    return value


def _listed(path: Path) -> list[dict]:
    listed = read_json(path, list)
    if not listed or not all(isinstance(one, dict) and isinstance(one.get("type"), str) for one in listed):
        raise CheckpointError(f"{path} is no list of modules, each with its type and path.")
    return listed


def _inside(path, modules_file: Path) -> str:
    """A module's folder; it could name any folder of the machine."""
    parts = path.replace("\\", "/").split("/") if isinstance(path, str) else [".."]
    if ".." in parts or (isinstance(path, str) and Path(path).is_absolute()):
        raise CheckpointError(f"{modules_file} names the folder {path!r}: a module must lie beside the list.")
    return path.strip("/")


def _kind(module: Mapping, name) -> str:
    kind = module["type"].rpartition(".")[2]
    if kind in ("Router", "Asym"):
        raise CheckpointError(
            f"{name} lists a {kind}, which reads queries and documents by different modules: tfxformer embeds all "
            "texts by one; take each of its encoders by tfxformer.from_pretrained(its folder)."
        )
    if not module["type"].startswith(_PACKAGE):
        raise CheckpointError(
            f"{name} lists {module['type']}, code that comes with the checkpoint, which tfxformer does not run."
        )
    return kind


def _check_encoder(encoder: Mapping, name) -> None:
    wrong = {key: encoder[key] for key, value in _WANTED.items() if encoder.get(key, value) != value}
    text = (encoder.get("modality_config") or {"text": {}}).get("text", {"method": None})
    if text.get("method", "forward") != "forward" or text.get("method_output_name", "last_hidden_state") not in (
        "last_hidden_state",
        ["last_hidden_state"],
    ):
        wrong["modality_config"] = encoder["modality_config"]
    wrong |= {key: value for key, value in encoder.items() if key not in _IGNORED and value not in (None, {}, False)}
    if wrong:
        said = ", ".join(f"{key}={value!r}" for key, value in wrong.items())
        raise CheckpointError(f"{name}: {ENCODER_FILE} says {said}, which tfxformer does not have.")


def _pooling(config: Mapping, name) -> tuple[tuple[str, ...], bool]:
    """(kinds, whether prompts are pooled); both forms, and none of the old form's switches on means the mean."""
    stated = config.get("pooling_mode")
    stated = stated if stated is not None else [kind for key, kind in _LEGACY.items() if config.get(key)] or "mean"
    kinds = (stated,) if isinstance(stated, str) else tuple(stated)
    unknown = [kind for kind in kinds if kind not in _LEGACY.values()] + [k for k in config if k not in _POOLING_KEYS]
    if unknown:
        raise CheckpointError(
            f"{name}: the pooling says {unknown[0]!r}; tfxformer pools by {', '.join(_LEGACY.values())}. To pool "
            'otherwise than the checkpoint, pass pooling="mean" or another one.'
        )
    return kinds, bool(config.get("include_prompt", True))


def _dense(config: Mapping | None, name) -> dict[str, Any]:
    if config is None:
        raise CheckpointError(f"{name} lists a Dense whose folder has no config.json.")
    stated = config.get("activation_function", f"{_TORCH}activation.Tanh")
    wrong = {
        key: config[key]
        for key in ("module_input_name", "module_output_name")
        if config.get(key) not in (None, _OUTPUT)
    }
    wrong |= {"use_residual": True} if config.get("use_residual") else {}
    if stated.removeprefix(_TORCH) not in _ACTIVATIONS:
        wrong["activation_function"] = stated
    if wrong:
        said = ", ".join(f"{key}={value!r}" for key, value in wrong.items())
        raise CheckpointError(
            f"{name}: a Dense says {said}; tfxformer has dense layers on the pooled vector, with the activations "
            f"{', '.join(_ACTIVATIONS)} of torch.nn."
        )
    return {
        "kind": "dense",
        "units": config["out_features"],
        "activation": _ACTIVATIONS[stated.removeprefix(_TORCH)],
        "use_bias": bool(config.get("bias", True)),
    }


def _shape(said: SentenceModules) -> tuple:
    """What modules.json and the modules' own files say."""
    return said.pooling, [dict(module) for module in said.modules], said.include_prompt


def _module_files(said: SentenceModules, width: int) -> dict[str, Any]:
    """The files of the modules, in the form that every version of sentence-transformers reads."""
    listed = [{"path": "", "type": "Transformer"}, {"path": POOLING_FOLDER, "type": "Pooling"}]
    stated = {key: kind in said.pooling for key, kind in _LEGACY.items()}
    if said.pooling != tuple(kind for kind in _LEGACY.values() if kind in said.pooling):
        stated = {"pooling_mode": list(said.pooling)}  # the older form cannot say another order
    pooling = {"word_embedding_dimension": width, **stated, "include_prompt": said.include_prompt}
    files: dict[str, Any] = {f"{POOLING_FOLDER}/config.json": pooling}
    names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    size = width * len(said.pooling)
    for index, module in enumerate(said.modules, 2):
        kind = {"dense": "Dense", "normalize": "Normalize"}[module["kind"]]
        listed.append({"path": f"{index}_{kind}", "type": kind})
        if kind == "Dense":
            files[f"{index}_Dense/config.json"] = {
                "in_features": size,
                "out_features": module["units"],
                "bias": module["use_bias"],
                "activation_function": _TORCH + names[module["activation"]],
            }
            size = module["units"]
    files[MODULES_FILE] = [
        {"idx": i, "name": str(i), "path": one["path"], "type": f"{_PACKAGE}models.{one['type']}"}
        for i, one in enumerate(listed)
    ]
    return files


def _update(files: dict[str, Any], said: SentenceModules) -> None:
    """Puts the longest text and the prompts into the files where they say otherwise."""
    stated = replace(describe(files), pooling=said.pooling, modules=said.modules, include_prompt=said.include_prompt)
    if (stated.max_length, stated.lowercase) != (said.max_length, said.lowercase):
        own = {"max_seq_length": said.max_length, "do_lower_case": said.lowercase}
        files[ENCODER_FILE] = {**files.get(ENCODER_FILE, {}), **own}
    if (dict(stated.prompts), stated.default_prompt_name) != (dict(said.prompts), said.default_prompt_name):
        own = {"prompts": dict(said.prompts), "default_prompt_name": said.default_prompt_name}
        files[SETTINGS_FILE] = {**files.get(SETTINGS_FILE, {}), **own}
    if stated.dimensions != said.dimensions:
        files[SETTINGS_FILE] = {**files.get(SETTINGS_FILE, {}), _DIMENSIONS: said.dimensions}
