"""Where variables lie in the reference's tensors, against loops over single numbers."""

import numpy as np
import pytest

from tfxformer.checkpoints.layout import LEAVES, Module, place, tensors_of

HEADS, WIDTH, D = 3, 2, 5
OUT = HEADS * WIDTH


def fused(transposed, by_head):
    return [Module("qkv", transposed=transposed, part=part, by_head=by_head) for part in range(3)]


def number(part, head, channel, column):
    """What output `channel` of a head of query, key or value has in input `column`."""
    return 1000 * part + 100 * head + 10 * channel + column


def fused_tensor(transposed, by_head, is_bias=False):
    columns = 1 if is_bias else D
    rows = [
        [number(part, head, channel, column) for column in range(columns)]
        for part, head, channel in (
            [(p, h, c) for h in range(HEADS) for p in range(3) for c in range(WIDTH)]
            if by_head
            else [(p, h, c) for p in range(3) for h in range(HEADS) for c in range(WIDTH)]
        )
    ]
    array = np.array(rows, "float32")
    if is_bias:
        return array[:, 0].copy()
    return array if transposed else np.ascontiguousarray(array.T)


@pytest.mark.parametrize("leaf", ["kernel", "bias"])
@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_parts_of_a_fused_tensor(transposed, by_head, leaf):
    tensor = fused_tensor(transposed, by_head, leaf == "bias")
    arrays, places = {}, {}
    for part, module in enumerate(fused(transposed, by_head)):
        where = place(module, leaf, HEADS, {})
        array = where.read(tensor)
        array = array.T if where.transposed else array
        shape = (OUT,) if leaf == "bias" else (D, OUT)
        assert array.shape == shape and where.tensor_shape(shape) == tensor.shape
        for head in range(HEADS):
            for channel in range(WIDTH):
                wanted = [number(part, head, channel, column) for column in range(D if leaf == "kernel" else 1)]
                np.testing.assert_array_equal(array[..., head * WIDTH + channel], np.squeeze(wanted))
        arrays[f"{part}/{leaf}"], places[f"{part}/{leaf}"] = array, where
    written = tensors_of(arrays, places)
    assert list(written) == [f"qkv.{LEAVES[leaf][0]}"]
    np.testing.assert_array_equal(written[f"qkv.{LEAVES[leaf][0]}"], tensor)


def test_a_part_is_read_without_a_copy():
    """Of a mapped file only the part in hand is in memory."""
    tensor = fused_tensor(False, False)
    assert np.shares_memory(place(fused(False, False)[1], "kernel", HEADS, {}).read(tensor), tensor)
    whole = place(Module("dense"), "kernel", HEADS, {})
    assert whole.read(tensor) is tensor and whole.transposed


def test_whole_tensors():
    torch_like, conv = Module("dense"), Module("dense", transposed=False)
    assert place(torch_like, "kernel", 3, {}).tensor_shape((5, 6)) == (6, 5)
    assert place(conv, "kernel", 3, {}).tensor_shape((5, 6)) == (5, 6)
    for leaf in ("bias", "embeddings", "gamma", "beta"):
        assert not place(torch_like, leaf, 3, {}).transposed


def test_names_in_order_of_preference():
    module = Module("embed_out", also=("lm_head",))
    assert place(module, "kernel", 1, {}).names == ("embed_out.weight", "lm_head.weight")
    assert place(Module("norm"), "gamma", 1, {}).names == ("norm.weight", "norm.gamma")
    assert place(Module("cls"), "bias", 1, {"decoder.bias": "cls.bias"}).names == ("cls.bias", "decoder.bias")
