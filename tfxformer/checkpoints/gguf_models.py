"""GGUF architectures under the reference's names: metadata as config.json, tensors as safetensors would have them.

llama.cpp's converter permutes the rows of a llama's query and key projections, so that the two numbers it rotates
together stand side by side; here they are put back to the reference's halves. Source of names and keys: llama.cpp,
`conversion/` and `gguf-py/gguf/constants.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.files.gguf import GGUFFile

_ABSENT = object()


@dataclass(frozen=True)
class Architecture:
    """What llama.cpp calls by one name.

    Attributes:
        keys: metadata key (without the architecture) -> key of config.json; all must be there.
        ignored: metadata keys that say nothing a model needs; any other one is an error.
        constants: what config.json says beside them.
        modules: GGUF module -> the reference's; "{i}" is the block.
        permuted: modules whose rows are stored in pairs for the rotation, with the metadata key of their heads.
        transposed: modules that the reference stores as [in, out].
    """

    name: str
    causal_lm: str
    keys: Mapping[str, str]
    constants: Mapping[str, Any]
    modules: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    permuted: Mapping[str, str] | None = None
    transposed: tuple[str, ...] = ()


_LLAMA_KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_LLAMA_MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{i}.attn_norm": "model.layers.{i}.input_layernorm",
    "blk.{i}.attn_q": "model.layers.{i}.self_attn.q_proj",
    "blk.{i}.attn_k": "model.layers.{i}.self_attn.k_proj",
    "blk.{i}.attn_v": "model.layers.{i}.self_attn.v_proj",
    "blk.{i}.attn_output": "model.layers.{i}.self_attn.o_proj",
    "blk.{i}.ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "blk.{i}.ffn_gate": "model.layers.{i}.mlp.gate_proj",
    "blk.{i}.ffn_up": "model.layers.{i}.mlp.up_proj",
    "blk.{i}.ffn_down": "model.layers.{i}.mlp.down_proj",
}
# Who converted the file, how; and sizes that the tensors themselves say.
_IGNORED = ("vocab_size", "tensor_data_layout", "rope.scaling.finetuned")

ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="llama",
            causal_lm="LlamaForCausalLM",
            keys=_LLAMA_KEYS,
            constants={"hidden_act": "silu"},
            modules=_LLAMA_MODULES,
            ignored=_IGNORED,
            permuted={"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"},
        ),
        Architecture(
            name="qwen2",
            causal_lm="Qwen2ForCausalLM",
            keys=_LLAMA_KEYS,
            constants={"hidden_act": "silu", "use_sliding_window": False},
            modules=_LLAMA_MODULES,
            ignored=_IGNORED,
        ),
        Architecture(
            name="gpt2",
            causal_lm="GPT2LMHeadModel",
            keys={
                "context_length": "n_positions",
                "embedding_length": "n_embd",
                "block_count": "n_layer",
                "feed_forward_length": "n_inner",
                "attention.head_count": "n_head",
                "attention.layer_norm_epsilon": "layer_norm_epsilon",
            },
            constants={"activation_function": "gelu_new"},
            modules={
                "token_embd": "transformer.wte",
                "position_embd": "transformer.wpe",
                "output_norm": "transformer.ln_f",
                "output": "lm_head",
                "blk.{i}.attn_norm": "transformer.h.{i}.ln_1",
                "blk.{i}.attn_qkv": "transformer.h.{i}.attn.c_attn",
                "blk.{i}.attn_output": "transformer.h.{i}.attn.c_proj",
                "blk.{i}.ffn_norm": "transformer.h.{i}.ln_2",
                "blk.{i}.ffn_up": "transformer.h.{i}.mlp.c_fc",
                "blk.{i}.ffn_down": "transformer.h.{i}.mlp.c_proj",
            },
            ignored=_IGNORED,
            transposed=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
        ),
    )
}
_ROPE_FREQUENCIES = "rope_freqs.weight"  # Llama 3's scaling, as the factor of each frequency
# The settings that Llama 3.1, 3.2 and 3.3 have; only the factor differs, and that one stands in the file.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


class GGUFTensors(Mapping[str, np.ndarray]):
    """A GGUF file's tensors under the reference's names and in its layout, float32, dequantized on access.

    Raises:
        CheckpointError: for a tensor that the architecture has no name for.
    """

    def __init__(self, file: GGUFFile, architecture: Architecture):
        self.path = file.path
        self._file, self._architecture = file, architecture
        self._names: dict[str, str] = {}
        unknown = []
        for name in file:
            module, _, leaf = name.rpartition(".")
            index = re.match(r"blk\.(\d+)\.", module)
            generic = f"blk.{{i}}.{module[index.end() :]}" if index else module
            if name == _ROPE_FREQUENCIES and architecture.permuted:
                continue  # read into the config
            if leaf not in ("weight", "bias") or generic not in architecture.modules:
                unknown.append(name)
                continue
            theirs = architecture.modules[generic].replace("{i}", index[1] if index else "")
            self._names[f"{theirs}.{leaf}"] = name
        if unknown:
            raise CheckpointError(
                f"{file.path} has {len(unknown)} tensors that tfxformer knows no place for in a GGUF "
                f"{architecture.name!r} model: {', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}."
            )

    def __getitem__(self, name: str) -> np.ndarray:
        ours = self._names[name]
        array = self._file[ours]
        part = ours.split(".")[-2]
        if part in (self._architecture.permuted or {}):
            return self._unpermuted(ours, array, self._architecture.permuted[part])
        if part in self._architecture.transposed and array.ndim == 2:
            return array.T
        return array

    def _unpermuted(self, name: str, array: np.ndarray, heads_key: str) -> np.ndarray:
        """Rows [head, pair, 2] put back to [head, 2, pair]."""
        heads = _heads(self._file, self._architecture, heads_key)
        if array.shape[0] % (2 * heads):
            raise CheckpointError(
                f"{self.path}: the tensor {name!r} of shape {list(array.shape)} cannot be that of {heads} heads."
            )
        paired = array.reshape(heads, array.shape[0] // heads // 2, 2, -1)
        return paired.swapaxes(1, 2).reshape(array.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape in the reference's layout, without touching its bytes."""
        ours = self._names[name]
        shape = self._file.shape(ours)
        turned = ours.split(".")[-2] in self._architecture.transposed and len(shape) == 2
        return shape[::-1] if turned else shape

    def dtype(self, name: str) -> np.dtype:
        """float32."""
        return self._file.dtype(self._names[name])


def open_gguf(path) -> tuple[dict[str, Any], GGUFTensors]:
    """A GGUF file as a checkpoint folder would be.

    Args:
        path: the file.

    Returns:
        What config.json would say (with the reference's model_type), and the tensors by the reference's names.

    Raises:
        CheckpointError: for a file that `GGUFFile` refuses, another architecture, settings or tensors that are
            missing or not implemented. ImportError: without the gguf package.
    """
    file = GGUFFile(path)
    name = file.metadata.get("general.architecture")
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} holds a model of the architecture {name!r}; of GGUF files tfxformer reads "
            f"{', '.join(ARCHITECTURES)}. Give its checkpoint folder with safetensors instead."
        )
    if file.metadata.get("general.type", "model") != "model":
        raise CheckpointError(f"{path} holds no model but a GGUF {file.metadata['general.type']!r}.")
    architecture = ARCHITECTURES[name]
    tensors = GGUFTensors(file, architecture)
    return _config(file, architecture, tensors), tensors


# How llama.cpp draws tokens of a file unless it is told otherwise.
_SAMPLING = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}


def _config(file: GGUFFile, architecture: Architecture, tensors: GGUFTensors) -> dict[str, Any]:
    read = _Reader(file, architecture)
    if "token_embd.weight" not in file:
        raise CheckpointError(f"{file.path} has no tensor 'token_embd.weight': a vocabulary without a model?")
    config: dict[str, Any] = {
        "model_type": architecture.name,
        "architectures": [architecture.causal_lm],
        "vocab_size": file.shape("token_embd.weight")[0],
        "tie_word_embeddings": "output.weight" not in file,
        "dtype": "float32",
        **architecture.constants,
    }
    for ours, theirs in architecture.keys.items():
        config[theirs] = read(ours, kind=float if ours.endswith("epsilon") else int)
    if architecture.name != "gpt2":
        config |= _rotary(file, read, config)
        config["num_key_value_heads"] = _heads(file, architecture, "attention.head_count_kv")
        if architecture.name == "llama":  # of Qwen2 the class itself says where biases are
            config["attention_bias"] = any("self_attn" in name and name.endswith(".bias") for name in tensors)
            config["mlp_bias"] = any("mlp" in name and name.endswith(".bias") for name in tensors)
    read.expect("expert_count", 0)
    if not read("attention.causal", True, bool):
        config["is_causal"] = False
    read.finish()
    sampling = {key: file.metadata.get(f"general.sampling.{name}") for key, name in _SAMPLING.items()}
    return config | _special_ids(file.metadata) | {key: value for key, value in sampling.items() if value is not None}


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


def _heads(file: GGUFFile, architecture: Architecture, key: str) -> int:
    """Query heads, or key and value heads, which are as many where the file does not say."""
    read = _Reader(file, architecture)
    heads = read(key, None) if key.endswith("_kv") else read(key)
    heads = read("attention.head_count") if heads is None else heads
    if heads < 1:
        raise CheckpointError(f"{file.path} says {architecture.name}.{key}={heads}: a model has at least one head.")
    return heads


def _rotary(file: GGUFFile, read: _Reader, config: dict) -> dict[str, Any]:
    """`head_dim` where the file says it, and `rope_parameters`."""
    read("attention.head_count_kv", None)
    heads = _heads(file, ARCHITECTURES[config["model_type"]], "attention.head_count")
    sizes = {read(key, None) for key in ("attention.key_length", "attention.value_length")} - {None}
    stated = read("rope.dimension_count", None)
    size = sizes.pop() if sizes else stated or config["hidden_size"] // heads
    if sizes or stated not in (None, size):
        raise CheckpointError(
            f"{file.path} has keys, values and rotated parts of different widths, which a "
            f"{config['model_type']!r} model does not have."
        )
    base = {"rope_theta": read("rope.freq_base", 10000.0, float)}
    return {"head_dim": size, "rope_parameters": base | _scaling(file, read, size, base["rope_theta"])}


def _scaling(file: GGUFFile, read: _Reader, size: int, theta: float) -> dict[str, Any]:
    plain, old = (read(key, None, float) for key in ("rope.scaling.factor", "rope.scale_linear"))
    factor = plain or old or 1.0
    kind = read("rope.scaling.type", "linear", str)
    frequencies = _ROPE_FREQUENCIES in file
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


def _llama3(file: GGUFFile, size: int, theta: float) -> dict[str, Any]:
    """Llama 3's settings, found again from the factors that they gave: the slowest frequency has the plain one.

    Source: transformers, modeling_rope_utils.py, `_compute_llama3_parameters`.
    """
    stored = file[_ROPE_FREQUENCIES]
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
