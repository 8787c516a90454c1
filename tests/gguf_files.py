"""Tiny GGUF files, written by the gguf package as llama.cpp's converter would."""

import numpy as np
import pytest

LLAMA = {
    "general.type": "model",
    "llama.context_length": 64,
    "llama.embedding_length": 64,
    "llama.block_count": 2,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 50000.0,
    "llama.rope.dimension_count": 16,
    "llama.vocab_size": 40,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}
# Block formats by parts of tensors' names.
MIXED = {
    "token_embd": "Q8_0",
    "ffn": "Q4_1",
    "attn_v": "F16",
    "attn_output": "BF16",
    "attn_k": "Q4_0",
    "attn_q": "Q5_1",
}


def write(path, architecture, fields, tensors, kinds=None):
    """A GGUF file of metadata `fields` and `tensors`; `kinds` names block formats by a part of the tensor's name.

    A field that is None is left out; a float is written as float32, an int as uint32.
    """
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in fields.items():
        if value is None:
            continue
        kind = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        kind.get(type(value), writer.add_array)(name, value)
    for name, array in tensors.items():
        kind = kind_of(name, kinds)
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def kind_of(name, kinds):
    """The block format of a tensor: norms and biases stay float32, as in every GGUF."""
    import gguf

    chosen = next((kind for part, kind in (kinds or {}).items() if part in name), "F32")
    return gguf.GGMLQuantizationType[chosen if name.endswith("weight") and "norm" not in name else "F32"]


def stored(name, array, kinds):
    """What is left of an array once it was stored."""
    import gguf

    kind = kind_of(name, kinds)
    return gguf.quants.dequantize(gguf.quants.quantize(np.ascontiguousarray(array), kind), kind)


def llama_tensors(seed=0, tied=True):
    """Random tensors of `LLAMA`, under GGUF's names."""
    generator = np.random.default_rng(seed)
    shapes = {"token_embd.weight": (40, 64), "output_norm.weight": (64,)}
    for index in range(2):
        shapes |= {
            f"blk.{index}.attn_norm.weight": (64,),
            f"blk.{index}.attn_q.weight": (64, 64),
            f"blk.{index}.attn_k.weight": (32, 64),
            f"blk.{index}.attn_v.weight": (32, 64),
            f"blk.{index}.attn_output.weight": (64, 64),
            f"blk.{index}.ffn_norm.weight": (64,),
            f"blk.{index}.ffn_gate.weight": (96, 64),
            f"blk.{index}.ffn_up.weight": (96, 64),
            f"blk.{index}.ffn_down.weight": (64, 96),
        }
    if not tied:
        shapes["output.weight"] = (40, 64)
    return {name: generator.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def write_llama(path, changes=None, tensors=None, kinds=None):
    """`LLAMA` with changed fields."""
    return write(path, "llama", {**LLAMA, **(changes or {})}, tensors or llama_tensors(), kinds)


def pairs(rows, heads):
    """Rows of a projection as llama.cpp's converter stores them, one head and one rotated pair after the other."""
    width = len(rows) // heads
    order = [
        head * width + half * width // 2 + i for head in range(heads) for i in range(width // 2) for half in (0, 1)
    ]
    return rows[order]
