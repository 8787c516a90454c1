"""The metadata of a GGUF file as config.json, every key of the architecture read or refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfxformer.checkpoints.family import SETTINGS_KEY
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.files.gguf import GGUFFile
from tfxformer.checkpoints.gguf_models.architectures import (
    LONG_FACTORS,
    ROPE_FREQUENCIES,
    SHORT_FACTORS,
    Architecture,
)

_ABSENT = object()
# The settings that Llama 3.1, 3.2 and 3.3 have; only the factor differs, and that one stands in the file.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
# llama.cpp's kinds of pooling; its fourth ranks pairs of texts, by a head of its own.
_POOLINGS = {0: "none", 1: "mean", 2: "cls", 3: "lasttoken"}
# How llama.cpp draws tokens of a file unless it is told otherwise.
_SAMPLING = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}


def read_config(file: GGUFFile, architecture: Architecture, names: Iterable[str]) -> dict[str, Any]:
    """What config.json would say.

    Args:
        file: the file.
        architecture: its row.
        names: of its tensors, the reference's.

    Raises:
        CheckpointError: for settings that are missing, make no sense or are not implemented.
    """
    read, names = _Reader(file, architecture), tuple(names)
    if "token_embd.weight" not in file:
        raise CheckpointError(f"{file.path} has no tensor 'token_embd.weight': a vocabulary without a model?")
    config: dict[str, Any] = {
        "model_type": architecture.model_type or architecture.name,
        "architectures": [architecture.causal_lm],
        "vocab_size": file.shape("token_embd.weight")[0],
        "tie_word_embeddings": "output.weight" not in file,
        "dtype": "float32",
        **architecture.constants,
    }
    for ours, theirs in architecture.keys.items():
        config[theirs] = read(ours, kind=float if ours.endswith("epsilon") else int)
    for ours, (theirs, default) in (architecture.optional or {}).items():
        config[theirs] = read(ours, default, type(default)) or None
    for key, part in (architecture.biases or {}).items():
        config[key] = any(part in name and name.endswith(".bias") for name in names)
    if architecture.rotary:
        config |= _rotary(file, architecture, read, config)
        config["num_key_value_heads"] = heads_of(file, architecture, "attention.head_count_kv")
    read.expect("expert_count", 0)
    if not read("attention.causal", True, bool):
        config["is_causal"] = False
    config |= _pooling(file, read("pooling_type", 0))
    read.finish()
    sampling = {key: file.metadata.get(f"general.sampling.{name}") for key, name in _SAMPLING.items()}
    return config | _special_ids(file.metadata) | {key: value for key, value in sampling.items() if value is not None}


def _pooling(file: GGUFFile, kind: int) -> dict[str, Any]:
    """How an embedder makes one vector of a text's tokens, as our own config.json says it."""
    if kind not in _POOLINGS:
        raise CheckpointError(f"{file.path} pools tokens by kind {kind}; of an embedder {_POOLINGS} are read.")
    return {SETTINGS_KEY: {"pooling": _POOLINGS[kind]}} if kind else {}


def _special_ids(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Ids of begin, end and padding, where the file has them; a chat model may have several that end a turn."""
    keys = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}
    ids = {theirs: metadata.get(f"tokenizer.ggml.{ours}_token_id") for ours, theirs in keys.items()}
    # Of a turn, and of a message that calls a tool: llama.cpp ends a text at either.
    turns = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom")]
    for index in (*ids.values(), *turns):
        if index is not None and type(index) is not int:
            raise CheckpointError(f"The GGUF file has {index!r} as the id of a special token.")
    ends = list(dict.fromkeys(index for index in (ids["eos_token_id"], *turns) if index is not None))
    if len(ends) > 1:
        ids["eos_token_id"] = ends
    elif ends:
        ids["eos_token_id"] = ends[0]
    return ids


class _Reader:
    """Reads an architecture's metadata, and in the end says what of it nobody read."""

    def __init__(self, file: GGUFFile, architecture: Architecture):
        self._file, self._architecture = file, architecture
        self._seen = set(architecture.ignored)

    def __call__(self, key: str, default: Any = _ABSENT, kind: type = int) -> Any:
        """A key's value; `default` where it is absent. Numbers must not be negative."""
        self._seen.add(key)
        name = f"{self._architecture.name}.{key}"
        if name not in self._file.metadata:
            if default is _ABSENT:
                raise CheckpointError(
                    f"{self._file.path} lacks the metadata key {name}, without which a {self._architecture.name!r} "
                    "model cannot be built."
                )
            return default
        value = self._file.metadata[name]
        if isinstance(value, list):
            if any(item != value[0] for item in value) or not value:
                raise CheckpointError(f"{self._file.path} has another {key} in each layer, which is not implemented.")
            value = value[0]
        value = float(value) if kind is float and type(value) is int else value
        if type(value) is not kind or (kind in (int, float) and not 0 <= value < math.inf):
            raise CheckpointError(f"{self._file.path} says {name}={value!r}, where a {kind.__name__} was due.")
        return value

    def expect(self, key: str, value: Any) -> None:
        found = self(key, value, type(value))
        if found != value:
            raise CheckpointError(
                f"{self._file.path} says {self._architecture.name}.{key}={found!r}; tfxformer implements {value!r} "
                "only, and would be silently wrong otherwise."
            )

    def finish(self) -> None:
        prefix = self._architecture.name + "."
        keys = [key.removeprefix(prefix) for key in self._file.metadata if key.startswith(prefix)]
        unread = sorted(set(keys) - self._seen)
        if unread:
            raise CheckpointError(
                f"{self._file.path} has settings that tfxformer does not implement for GGUF "
                f"{self._architecture.name!r} models, and would be silently wrong without: "
                f"{', '.join(f'{key}={self._file.metadata[prefix + key]!r}' for key in unread)}."
            )


def heads_of(file: GGUFFile, architecture: Architecture, key: str) -> int:
    """Query heads, or key and value heads, which are as many where the file does not say."""
    read = _Reader(file, architecture)
    heads = read(key, None) if key.endswith("_kv") else read(key)
    heads = read("attention.head_count") if heads is None else heads
    if heads < 1:
        raise CheckpointError(f"{file.path} says {architecture.name}.{key}={heads}: a model has at least one head.")
    return heads


def _rotary(file: GGUFFile, architecture: Architecture, read: _Reader, config: dict) -> dict[str, Any]:
    """`head_dim` where the file says it, and `rope_parameters`."""
    read("attention.head_count_kv", None)
    heads = heads_of(file, architecture, "attention.head_count")
    sizes = {read(key, None) for key in ("attention.key_length", "attention.value_length")} - {None}
    stated = read("rope.dimension_count", None)
    size = sizes.pop() if sizes else (None if architecture.partial else stated) or config["hidden_size"] // heads
    turned = stated or size
    if sizes or turned > size or (turned < size and not architecture.partial):
        raise CheckpointError(
            f"{file.path} has keys, values and rotated parts of different widths, which a "
            f"{architecture.name!r} model does not have."
        )
    base = {"rope_theta": read("rope.freq_base", 10000.0, float)}
    if architecture.partial:
        base["partial_rotary_factor"] = turned / size
    said: dict[str, Any] = {"head_dim": size, "rope_parameters": base | _scaling(file, read, size, base["rope_theta"])}
    if architecture.sliding_theta is not None:
        theta = read("rope.freq_base_swa", architecture.sliding_theta, float)
        sliding = {"rope_theta": theta, "rope_type": "default"}
        said["rope_parameters"] = {"full_attention": said["rope_parameters"], "sliding_attention": sliding}
    if architecture.largest is not None:
        is_largest = config["num_hidden_layers"] == architecture.largest
        said["query_pre_attn_scalar"] = config["hidden_size"] // heads if is_largest else size
    return said


def _scaling(file: GGUFFile, read: _Reader, size: int, theta: float) -> dict[str, Any]:
    plain, old = (read(key, None, float) for key in ("rope.scaling.factor", "rope.scale_linear"))
    factor = plain or old or 1.0
    kind = read("rope.scaling.type", "linear", str)
    if SHORT_FACTORS in file:
        return _longrope(file, read, kind)
    frequencies = ROPE_FREQUENCIES in file
    yarn = {
        "original_max_position_embeddings": read("rope.scaling.original_context_length", None),
        "attention_factor": read("rope.scaling.yarn_attn_factor", None, float),
        "beta_fast": read("rope.scaling.yarn_beta_fast", None, float),
        "beta_slow": read("rope.scaling.yarn_beta_slow", None, float),
    }
    if kind == "yarn" and not frequencies:
        if yarn["original_max_position_embeddings"] is None:
            read("rope.scaling.original_context_length")
        said = {key: value for key, value in yarn.items() if value is not None}
        return {"rope_type": "yarn", "factor": factor, **said}
    if kind not in ("none", "linear") or (frequencies and factor != 1.0):
        raise CheckpointError(f"{file.path} scales rotary positions by {kind!r}, which is not implemented for GGUF.")
    if frequencies:
        return _llama3(file, size, theta)
    return {"rope_type": "default"} if kind == "none" or factor == 1.0 else {"rope_type": "linear", "factor": factor}


def _longrope(file: GGUFFile, read: _Reader, kind: str) -> dict[str, Any]:
    """Both lists of factors; "linear" is what a file says that names no kind."""
    if LONG_FACTORS not in file or kind not in ("linear", "longrope"):
        raise CheckpointError(
            f"{file.path} scales rotary positions by {kind!r} with {SHORT_FACTORS}: wanted 'longrope' with both "
            f"{LONG_FACTORS} and that."
        )
    trained = read("rope.scaling.original_context_length")
    factor = read("rope.scaling.attn_factor", None, float)
    return {
        "rope_type": "longrope",
        "short_factor": file[SHORT_FACTORS].tolist(),
        "long_factor": file[LONG_FACTORS].tolist(),
        "original_max_position_embeddings": trained,
        **({} if factor is None else {"attention_factor": factor}),
    }


def _llama3(file: GGUFFile, size: int, theta: float) -> dict[str, Any]:
    """Llama 3's settings, found again from the factors that they gave: the slowest frequency has the plain one.

    Source: transformers, modeling_rope_utils.py, `_compute_llama3_parameters`.
    """
    stored = file[ROPE_FREQUENCIES]
    parameters = {"rope_type": "llama3", "factor": round(float(stored.max()), 4), **_LLAMA3}
    wavelengths = 2 * math.pi * theta ** (np.arange(0, size, 2) / size)
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = parameters["original_max_position_embeddings"] / wavelengths
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    expected = 1 / ((1 - smooth) / parameters["factor"] + smooth)
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-4):
        raise CheckpointError(
            f"{file.path} scales rotary frequencies by factors that are not those of Llama 3's settings {_LLAMA3}. "
            "Give the checkpoint folder with config.json instead."
        )
    return parameters
