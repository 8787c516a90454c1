"""Where variables lie in the reference's tensors, against loops over single numbers."""

import numpy as np
import pytest

from tfxformer.checkpoints.layout import LEAVES, Module, place, tensors_of
from tfxformer.layers import Rotary
from tfxformer.layers.attention.rotary import RotaryPositions, rotate
from tfxformer.models import AttentionConfig, StackConfig

HEADS, WIDTH, D = 3, 2, 5
OUT = HEADS * WIDTH
STACK = StackConfig(1, OUT, HEADS, 8)


def fused(transposed, by_head):
    return [Module("qkv", transposed=transposed, part=part, by="heads" if by_head else None) for part in range(3)]


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
        where = place(module, leaf, STACK, {})
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
    assert np.shares_memory(place(fused(False, False)[1], "kernel", STACK, {}).read(tensor), tensor)
    whole = place(Module("dense"), "kernel", STACK, {})
    assert whole.read(tensor) is tensor and whole.transposed


def test_whole_tensors():
    torch_like, conv = Module("dense"), Module("dense", transposed=False)
    assert place(torch_like, "kernel", STACK, {}).tensor_shape((5, 6)) == (6, 5)
    assert place(conv, "kernel", STACK, {}).tensor_shape((5, 6)) == (5, 6)
    for leaf in ("bias", "embeddings", "gamma", "beta"):
        assert not place(torch_like, leaf, STACK, {}).transposed


def test_names_in_order_of_preference():
    module = Module("embed_out", also=("lm_head",))
    assert place(module, "kernel", STACK, {}).names == ("embed_out.weight", "lm_head.weight")
    assert place(Module("norm"), "gamma", STACK, {}).names == ("norm.weight", "norm.gamma")
    assert place(Module("cls"), "bias", STACK, {"decoder.bias": "cls.bias"}).names == ("cls.bias", "decoder.bias")


GROUPED = StackConfig(1, 24, AttentionConfig(6, 2), 8)  # 3 query heads to one of keys and values, of width 4


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("sizes", "by"), [(("heads", "groups", "groups"), None), (("heads_per_group", 1, 1), "groups"), ((1, 1), None)]
)
def test_parts_of_unequal_size(sizes, by, transposed):
    """Phi-3's rows [N*H, G*H, G*H], Falcon's [G, N/G + 2, H], and a gate beside what it gates."""
    widths = (24, 8, 8) if len(sizes) == 3 else (7, 7)
    arrays = {f"{part}/kernel": np.random.default_rng(part).normal(size=(D, w)) for part, w in enumerate(widths)}
    places = {
        f"{part}/kernel": place(
            Module("fused", part=part, sizes=sizes, by=by, transposed=transposed), "kernel", GROUPED, {}
        )
        for part in range(len(sizes))
    }
    (tensor,) = tensors_of(arrays, places).values()
    rows = []  # of the reference, one after another
    if by is None:
        rows = [row for array in arrays.values() for row in array.T]
    else:
        for group in range(2):
            rows += [arrays["0/kernel"][:, group * 12 + row] for row in range(12)]
            rows += [arrays[f"{part}/kernel"][:, group * 4 + row] for part in (1, 2) for row in range(4)]
    np.testing.assert_array_equal(tensor, np.array(rows) if transposed else np.array(rows).T)
    for path, array in arrays.items():
        where = places[path]
        assert where.tensor_shape(array.shape) == tensor.shape
        found = where.read(tensor)
        np.testing.assert_array_equal(found.T if transposed else found, array)


TURNING = StackConfig(1, 24, AttentionConfig(4, 2, rotary=Rotary(fraction=4 / 6)), 8)  # 4 of 6 channels turn


@pytest.mark.parametrize("part", [None, 1])
@pytest.mark.parametrize("leaf", ["kernel", "bias"])
@pytest.mark.parametrize("transposed", [False, True])
def test_neighbours_that_turn_together(transposed, leaf, part):
    """GPT-J's channels 2i and 2i + 1 are our i and i + R/2, in all heads; those that do not turn stay."""
    sizes = ("heads", "groups", "groups")
    module = Module("key", transposed=transposed, part=part, sizes=sizes, neighbours=True)
    where = place(module, leaf, TURNING, {})
    shape = (12,) if leaf == "bias" else (D, 12)
    ours = np.random.default_rng(0).normal(size=shape)
    others = [] if part is None else [np.zeros((*shape[:-1], 24)), np.zeros(shape)]
    arrays = {f"1/{leaf}": ours, **{f"{2 * i}/{leaf}": other for i, other in enumerate(others)}}
    places = {f"1/{leaf}": where} | {
        f"{2 * i}/{leaf}": place(Module("key", transposed=transposed, part=2 * i, sizes=sizes), leaf, TURNING, {})
        for i in range(len(others))
    }
    (tensor,) = tensors_of(arrays, places).values()
    found = where.read(tensor)
    np.testing.assert_array_equal(found.T if where.transposed else found, ours)
    rows = np.moveaxis(tensor, -1, 0) if not where.transposed else tensor
    rows = rows if part is None else rows[24:36]
    for head in range(2):
        for theirs, own in ((0, 0), (1, 2), (2, 1), (3, 3), (4, 4), (5, 5)):
            np.testing.assert_array_equal(rows[head * 6 + theirs], ours[..., head * 6 + own])


@pytest.mark.parametrize("width", [4, 6])
def test_scores_of_neighbours_are_those_of_halves(width):
    """Turned pair by pair in the file's order, queries and keys have the products that ours have."""
    rotary = Rotary(base=100.0, fraction=width / 6)
    stack = StackConfig(1, 12, AttentionConfig(2, rotary=rotary), 8)
    where = place(Module("query", neighbours=True), "bias", stack, {})
    theirs = np.random.default_rng(1).normal(size=(2, 5, 12)).astype("float32")  # queries and keys of 5 tokens
    products, turned = [], []
    for rows in theirs:
        ours = np.stack([where.read(row) for row in rows]).reshape(1, 5, 2, 6).transpose(0, 2, 1, 3)
        products.append(np.asarray(rotate(ours, *RotaryPositions(rotary, 6)(np.arange(5)[None]))))
        pairs = rows.reshape(5, 2, 6).astype(complex)
        for i in range(width // 2):
            number = (pairs[..., 2 * i] + 1j * pairs[..., 2 * i + 1]) * np.exp(
                1j * np.arange(5)[:, None] * 100.0 ** (-2 * i / width)
            )
            pairs[..., 2 * i], pairs[..., 2 * i + 1] = number.real, number.imag
        turned.append(pairs.real)
    wanted = np.einsum("snh,tnh->nst", *turned)
    np.testing.assert_allclose(np.einsum("bnsh,bnth->nst", *products), wanted, atol=1e-5)
