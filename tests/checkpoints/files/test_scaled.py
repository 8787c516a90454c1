"""Checkpoints in 8 bits with scales: their products by numpy, and transformers' own; other formats are refused."""

import json
import shutil
import warnings

import make_fixtures
import ml_dtypes
import numpy as np
import pytest
import tiny
from checkpoint_folders import configure

import tfxformer
from tfxformer import tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.files import safetensors
from tfxformer.checkpoints.pretrained import open_checkpoint

F8 = ml_dtypes.float8_e4m3fn
BLOCK = (16, 16)
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
BLOCKS = {**FP8, "weight_block_size": list(BLOCK)}
FBGEMM = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}


def compressed(kind="float", form="float-quantized", **changes):
    weights = {"num_bits": 8, "type": kind, "strategy": "channel", "symmetric": True, **changes}
    groups = {"group_0": {"weights": weights, "input_activations": None, "targets": ["Linear"]}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": groups, "ignore": ["lm_head"]}


def write(path, tensors):
    """safetensors with floats of 8 bits, which our writer has no use for."""
    names = safetensors._NAMES | {dtype: name for name, dtype in safetensors.EIGHT_BIT_FLOATS.items()}
    header, position = {}, 0
    for name, array in tensors.items():
        end = position + array.nbytes
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [position, end]}
        position = end
    encoded = json.dumps(header).encode()
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in tensors.values())
    path.unlink(missing_ok=True)
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content)


def by_block(weight, block=BLOCK):
    """Numbers of 8 bits, scales [rows/16, columns/16], and their products, number by number."""
    rows, columns = weight.shape
    scale = np.random.default_rng(len(weight)).uniform(0.01, 0.02, (-(-rows // block[0]), -(-columns // block[1])))
    scale = scale.astype("float32")
    stored = (weight / 0.015).astype(F8)
    wanted = np.empty(weight.shape, "float32")
    for row in range(rows):
        for column in range(columns):
            wanted[row, column] = np.float32(stored[row, column]) * scale[row // block[0], column // block[1]]
    return stored, scale, wanted


def by_row(weight, dtype=F8):
    scale = (np.abs(weight).max(1, keepdims=True) / 100).astype("float32")
    stored = (weight / scale).astype(dtype)
    return stored, scale, stored.astype("float32") * scale


def by_tensor(weight):
    stored = (weight / 0.015).astype(F8)
    return stored, np.float32(0.015).reshape(()), stored.astype("float32") * np.float32(0.015)


def by_row_of_integers(weight):
    return by_row(weight, np.int8)


# How config.json says it, how weights are stored, the end of a scale's name.
FORMATS = {
    "fp8 in blocks": (BLOCKS, by_block, "_scale_inv"),
    "fp8 by tensor": (FP8, by_tensor, "_scale_inv"),
    "fp8 by tensor, static": ({**FP8, "activation_scheme": "static"}, by_tensor, "_scale"),
    "fbgemm": (FBGEMM, by_row, "_scale"),
    "compressed-tensors by row": (compressed(), by_row, "_scale"),
    "compressed-tensors by tensor": (compressed(strategy="tensor"), by_tensor, "_scale"),
    "compressed-tensors in blocks": (compressed(strategy="block", block_structure=list(BLOCK)), by_block, "_scale"),
    "compressed-tensors, integers": (compressed("int", "int-quantized"), by_row_of_integers, "_scale"),
}


def is_linear(name):
    return name.endswith("_proj.weight")


def quantized(tmp_path, said, store, end, name="llama-lm"):
    """A fixture's folder in 8 bits, its projections only, and the tensors that it stands for."""
    folder = shutil.copytree(make_fixtures.FOLDER / name, tmp_path / "checkpoint")
    stored, wanted = {}, {}
    for key, array in safetensors.open_folder(folder).items():
        wanted[key] = np.array(array)
        stored[key] = wanted[key]
        if is_linear(key):
            stored[key], stored[key + end], wanted[key] = store(wanted[key])
            stored[key.removesuffix("weight") + "input_scale"] = np.ones(1, "float32")
    write(folder / "model.safetensors", stored)
    configure(folder, quantization_config=said)
    return folder, wanted


@pytest.mark.parametrize("form", FORMATS)
def test_numbers_are_those_of_the_definition(form, tmp_path):
    folder, wanted = quantized(tmp_path, *FORMATS[form])
    reference, read = open_checkpoint(folder)
    assert "quantization_config" not in reference
    assert set(read) == set(wanted) and len(read) == len(wanted)
    assert set(read.scaled) == {name for name in wanted if is_linear(name)}
    for name, array in wanted.items():
        assert read.shape(name) == array.shape and read.dtype(name) == array.dtype == read[name].dtype
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("form", ["fp8 in blocks", "compressed-tensors by row"])
def test_a_model_opens_and_is_saved_as_plain_floats(form, tmp_path):
    folder, wanted = quantized(tmp_path, *FORMATS[form])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved = tasks.CausalLM.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in json.loads((saved / "config.json").read_text())
    read = safetensors.open_folder(saved)
    for name in filter(is_linear, wanted):
        np.testing.assert_array_equal(read[name], wanted[name])


@pytest.mark.reference
@pytest.mark.parametrize("form", ["fp8 in blocks", "fp8 by tensor"])
def test_transformers_dequantizes_to_the_same_numbers(form, tmp_path):
    import torch
    import transformers

    pytest.importorskip("accelerate")
    said, store, end = FORMATS[form]
    if store is by_block:  # transformers wants whole blocks
        said, store = {**said, "weight_block_size": [8, 8]}, lambda weight: by_block(weight, (8, 8))
    folder, _ = quantized(tmp_path, said, store, end)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    _, read = open_checkpoint(folder)
    theirs = model.state_dict()
    for name in read.scaled:
        np.testing.assert_array_equal(theirs[name].float().numpy(), read[name], err_msg=name)


# ---- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
        {"quant_method": "awq", "bits": 4, "version": "gemm"},
        {"quant_method": "mxfp4"},
        {"quant_method": "torchao"},
        {**BLOCKS, "modules_to_convert": ["model.embed_tokens"]},
        {**FP8, "weight_block_size": "128"},
        compressed(form="pack-quantized"),
        compressed(form="nvfp4-pack-quantized"),
        compressed(num_bits=4),
        compressed(symmetric=False),
        {**compressed(), "transform_config": {"config_groups": {"R1": {}}}},
        {**compressed(), "sparsity_config": {"format": "sparse-24-bitmask"}},
        {**compressed(), "config_groups": None},
    ],
    ids=lambda said: f"{said['quant_method']} {list(said)[-1]}",
)
def test_other_formats_are_refused_by_their_names(said, tmp_path):
    folder, _ = quantized(tmp_path, said, by_row, "_scale")
    with pytest.raises(CheckpointError, match=rf"quantized \({said['quant_method']}\).*not damaged.*unquantized"):
        tfxformer.from_pretrained(folder)


def test_floats_of_8_bits_without_a_word_in_the_config_are_refused(tmp_path):
    folder, _ = quantized(tmp_path, "absent", by_row, "_scale")
    with pytest.raises(CheckpointError, match=r"quantized checkpoint: tensor .* holds F8_E4M3 numbers"):
        tfxformer.from_pretrained(folder)


PROJECTION = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(PROJECTION + "_scale_inv"), r"q_proj\.weight' in 8 bits without a scale"),
        (lambda t: t.update({PROJECTION: np.ones(t[PROJECTION].shape, "float32")}), "belongs to no weight in 8 bits"),
        (lambda t: t.update({PROJECTION + "_scale_inv": np.ones((1, 3), "float32")}), "does not fit the weight's"),
        (lambda t: t.update({PROJECTION + "_scale_inv": np.ones((9, 9, 9), "float32")}), "does not fit the weight's"),
        (lambda t: t.update({PROJECTION + "_scale_inv": np.ones((), "uint8")}), "in uint8, not in floats"),
        (lambda t: t.update({PROJECTION + "_zero_point": np.ones((), "float32")}), "belongs to no weight"),
    ],
    ids=["no scale", "no weight", "a grid of another block", "three dimensions", "exponents", "zero point"],
)
def test_scales_and_weights_that_do_not_belong_together_are_refused(change, message, tmp_path):
    folder, _ = quantized(tmp_path, *FORMATS["fp8 in blocks"])
    tensors = {
        name: np.array(array)
        for name, array in safetensors.SafetensorsFile(folder / "model.safetensors", scaled=True).items()
    }
    change(tensors)
    write(folder / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=rf"{message}.*'fp8'.*unquantized checkpoint"):
        tfxformer.from_pretrained(folder)


def test_plain_weights_under_a_config_that_says_fp8_are_refused(tmp_path):
    folder = shutil.copytree(make_fixtures.FOLDER / "llama-lm", tmp_path / "checkpoint")
    configure(folder, quantization_config=FP8)
    with pytest.raises(CheckpointError, match="remove the key"):
        tfxformer.from_pretrained(folder)


def test_outputs_are_near_those_of_the_source(tmp_path):
    """A scale by row leaves a sixteenth of each number's size for its error."""
    folder, _ = quantized(tmp_path, *FORMATS["compressed-tensors by row"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tfxformer.from_pretrained(folder)
        source = tfxformer.from_pretrained(make_fixtures.FOLDER / "llama-lm")
    ours, theirs = tiny.weights(model), tiny.weights(source)
    assert ours.keys() == theirs.keys()
    for path, array in theirs.items():
        assert np.abs(ours[path] - array).max() <= np.abs(array).max() / 16
