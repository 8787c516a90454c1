"""Weights of 4 bits that are carried over: against the gguf package, which says what its files hold."""

import gguf_files
import keras
import numpy as np
import pytest

from tfxformer import export, tasks
from tfxformer.export.quantization import carried
from tfxformer.runtime.format import flatbuffer

pytest.importorskip("ai_edge_quantizer", reason="needs the extra [int4]")
gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.extra

GENERATOR = np.random.default_rng(0)
ROUNDED = ["Q4_0", "Q4_1"]


def packed(kind, rows, columns):
    """The bytes of normally distributed weights in a block format of GGUF."""
    weights = GENERATOR.normal(size=(rows, columns)).astype("float32")
    return gguf.quants.quantize(weights, gguf.GGMLQuantizationType[kind])


def weights_of(kind, content):
    return gguf.quants.dequantize(content, gguf.GGMLQuantizationType[kind]).astype("float32")


def super_blocks(rows, count):
    """Q4_K as llama.cpp packs it: two float16, twelve bytes of scales, 256 weights of 4 bits."""
    content = GENERATOR.integers(0, 256, (rows, count, 144), dtype=np.uint8)
    content[..., :4] = np.array([0.01, 0.1], np.float16).view(np.uint8)
    return content.reshape(rows, -1)


def nibbles(content, header):
    """q of Q4_0 and Q4_1, 0 to 15: the lower halves of a block's bytes are its first 16 weights."""
    blocks = content.reshape(len(content), -1, header + 16)[..., header:]
    return np.concatenate([blocks & 0xF, blocks >> 4], axis=-1).astype(np.int8)


def close(grid, weights):
    """Whether a grid is the weights, but for what bfloat16 leaves of its steps."""
    groups = weights.reshape(len(weights), -1, carried.BLOCK)
    integers = grid.integers.reshape(groups.shape)
    assert integers.min() >= -8
    assert integers.max() <= 7
    found = integers * grid.steps[..., None] + grid.offsets[..., None]
    return (np.abs(found - groups) <= 8 * 2.0**-8 * grid.steps[..., None]).all()


@pytest.mark.parametrize("kind", [*ROUNDED, "Q4_K"])
def test_blocks_of_four_bits_lie_on_grids(kind):
    content = super_blocks(16, 2) if kind == "Q4_K" else packed(kind, 16, 96)
    weights = weights_of(kind, content)
    assert close(carried.grid_of(weights), weights)


@pytest.mark.parametrize("kind", ["Q5_0", "Q5_1", "Q8_0"])
def test_finer_blocks_do_not(kind):
    assert carried.grid_of(weights_of(kind, packed(kind, 16, 96))) is None


def test_what_was_never_rounded_lies_on_none():
    assert carried.grid_of(GENERATOR.normal(size=(8, 64)).astype("float32")) is None
    assert carried.grid_of(np.zeros((8, 40), "float32")) is None  # 40 are no blocks of 32


def test_one_block_without_a_grid_is_enough():
    weights = weights_of("Q4_1", packed("Q4_1", 16, 96))
    weights[3, 40] += 0.01
    assert carried.grid_of(weights) is None


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_block_of_equal_weights(value):
    weights = np.full((4, 64), value, "float32")
    grid = carried.grid_of(weights)
    assert close(grid, weights)
    np.testing.assert_array_equal(grid.offsets, value)


def products_of(kernels):
    """A Keras model of products that read one input."""
    given = keras.Input((3, kernels[0].shape[1]), name="x")
    layers = [keras.layers.Dense(len(kernel), name=f"product_{i}") for i, kernel in enumerate(kernels)]
    model = keras.Model({"x": given}, {layer.name: layer(given) for layer in layers})
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.kernel.assign(kernel.T)
    return model


def stored_integers(file, columns):
    """The first columns of the int4 weights of a file, by their rows."""
    found = {}
    for graph in file.subgraphs:
        for tensor in (one for one in graph.tensors if flatbuffer.tensor_info(one).dtype == "int4"):
            data = file.buffers[tensor.buffer].data
            halves = np.stack([data & 0xF, data >> 4], axis=1).reshape(tuple(tensor.shape)).astype(np.int8)
            found[len(halves)] = np.where(halves > 7, halves - 16, halves)[:, :columns]
    return found


@pytest.mark.parametrize("columns", [64, 96, 1056])  # 2, 3 and 33 blocks: their offsets fill one column of 32, or two
def test_a_file_holds_the_integers_of_the_gguf(tmp_path, columns):
    contents = {rows: packed("Q4_1", rows, columns) for rows in (24, 40)}
    kernels = [weights_of("Q4_1", content) for content in contents.values()]
    samples = {"x": GENERATOR.normal(size=(20, 3, columns)).astype("float32")}
    errors = {}
    for name, given in (("carried", kernels), ("rounded", [kernel * 1.01 ** np.arange(columns) for kernel in kernels])):
        path = tmp_path / f"{name}.tflite"
        report = export.export_litert(products_of(given), path, "int4_block32", samples=samples, tolerance=0.9)
        errors[name] = report.error
    assert errors["carried"] < errors["rounded"] / 2
    file = flatbuffer.read((tmp_path / "carried.tflite").read_bytes())
    stored = stored_integers(file, columns)
    for rows, content in contents.items():
        np.testing.assert_array_equal(stored[rows].reshape(rows, -1, 32), nibbles(content, 4) - 8)
    assert flatbuffer.operators(file)["SUM"] == 1  # both products read the same sums


KINDS = {"ffn": "Q4_1", "attn_q": "Q4_0", "attn_k": "Q4_1", "attn_v": "Q4_1", "attn_output": "Q4_1"}


def test_a_language_model_of_a_gguf_file(tmp_path):
    """Its 4 bits stay, those of shared keys and values too, beside matrices that never had them."""
    texts = {"cache_length": 32, "prefill_lengths": (4,), "tolerance": 0.9}
    rows = list(GENERATOR.integers(3, 40, (6, 20)))
    errors = {}
    for name, kinds in (("all", KINDS), ("some", {**KINDS, "attn_k": "F16", "ffn_down": "Q8_0"}), ("none", {})):
        kinds = {"ffn_down": kinds.pop("ffn_down"), **kinds} if "ffn_down" in kinds else kinds  # the first part counts
        model = tasks.CausalLM.from_pretrained(gguf_files.write_llama(tmp_path / f"{name}.gguf", kinds=kinds))
        assert carried.of_four_bits(model) == (name != "none")
        path = tmp_path / f"{name}.tflite"
        errors[name] = export.export_litert(model, path, "int4_block32", representative=rows, **texts).error
        types = {}
        file = flatbuffer.read(path.read_bytes())
        for graph in file.subgraphs:
            for operator in graph.operators:
                if flatbuffer.operator_name(file, operator) == "FULLY_CONNECTED":
                    weight = flatbuffer.tensor_info(graph.tensors[int(operator.inputs[1])])
                    types.setdefault(weight.shape[0], set()).add((weight.dtype, weight.shape[1]))
        wide = 64 + 2 * 32  # 2 blocks, and a column of 32 for their offsets, twice
        keys_and_values = {"all": {("int4", wide)}, "some": {("int4", wide), ("int8", 64)}, "none": {("int8", 64)}}
        assert types[32] == keys_and_values[name]
    assert errors["all"] < 0.5 * errors["none"]
    assert errors["all"] < errors["some"] < errors["none"]
