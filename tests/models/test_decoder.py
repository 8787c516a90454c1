"""The functional decoder: the whole row against its cached step, for every scheme of positions and odd batch."""

import functools
import itertools
import json

import batteries
import keras
import numpy as np
import pytest
import tiny
from optional_tensorflow import tf

import tfxformer
from tfxformer import tasks
from tfxformer.layers import Cache, Scores
from tfxformer.layers.attention.rotary import ROTARY_KINDS, Rotary
from tfxformer.models import Decoder

LENGTH, SLOTS = 12, 17
ROWS = (12, 9, 4)  # real tokens, the rest is padding on the left
CHUNKS = (2, 5, 4, 1)  # the second begins within the padding of two rows
POSITIONS = {
    "learned": {},
    "learned with offset": {"decoder__position_offset": 2},
    "alibi": {"decoder__attention__scores": Scores("alibi")},
    "relative": {"decoder__attention__scores": Scores("relative", 8, 10)},
    "default": Rotary(),
    "partial": Rotary(fraction=0.5),
    "linear": Rotary(kind="linear", factor=4.0),
    "dynamic": Rotary(kind="dynamic", factor=4.0, original_max_positions=16),
    "llama3": Rotary(base=100.0, kind="llama3", factor=4.0, original_max_positions=32),
    "longrope": Rotary(
        kind="longrope", original_max_positions=32, short_factors=(1.0, 1.0, 2.0, 3.0), long_factors=(9.0,) * 4
    ),
    "yarn": Rotary(base=100.0, kind="yarn", factor=4.0, original_max_positions=32),
    "ntk": Rotary(base=100.0, kind="ntk", factor=4.0),
}
SLIDING = {"decoder__attention": {"full": {}, "sliding": {"window": 4}}, "decoder__pattern": ("full", "sliding")}
SWITCHES = {
    "plain": {},
    "grouped": {
        "decoder__attention__key_value_heads": 2,
        "decoder__norm__kind": "rms",
        "decoder__feed_forward__gated": True,
    },
    "sliding": SLIDING,
    "convolutions": {"decoder__convolution": 3, "decoder__pattern": ("convolution", "full")},
    "delta rule, gated": {
        "decoder__delta_rule": {"key_heads": 2, "value_heads": 4, "key_width": 6, "value_width": 5},
        "decoder__pattern": ("delta_rule", "full"),
        "decoder__attention__gated": True,
    },
    "all sliding": {"decoder__attention__window": 3},
    "parallel": {"decoder__norm__placement": "parallel", "decoder__attention__width": 12},
    "sandwich, capped": {"decoder__norm__placement": "sandwich", "decoder__attention__soft_cap": 2.0},
    "output, normed heads": {"decoder__norm__placement": "output", "decoder__attention__query_key_norm": "whole"},
    "shared, normed heads": {"decoder__norm__placement": "shared", "decoder__attention__query_key_norm": "head"},
    "post": {"decoder__norm__placement": "post", "decoder__norm__final": False, "decoder__norm__embedding": True},
}


@functools.cache
def make(positions="learned", switches="plain", **arguments):
    """A decoder, made once for all tests: none changes it."""
    scheme = POSITIONS[positions]
    if isinstance(scheme, Rotary):
        scheme = {"decoder__attention__rotary": scheme}
    return tiny.backbone("gpt2", **{**scheme, **SWITCHES[switches], **arguments})


def make_batch(seed=0):
    generator = np.random.default_rng(seed)
    mask = np.array([[0] * (LENGTH - n) + [1] * n for n in ROWS], "int32")
    ids = generator.integers(5, 95, mask.shape).astype("int32")
    return {"token_ids": ids * mask, "padding_mask": mask}


def run_cached(model, inputs, chunks, slots=SLOTS):
    """The sequence output of a row fed in chunks to a cache with room to spare, whose slots hold numbers already."""
    mask = np.ones((len(inputs["token_ids"]), slots), "int32")
    mask[:, :LENGTH] = inputs["padding_mask"]
    cache = model.new_cache(len(mask), slots)
    cache = cache._replace(self_attention=keras.tree.map_structure(lambda x: x + 7.0, cache.self_attention))
    parts, start = [], 0
    for length in chunks:
        step = {
            "token_ids": inputs["token_ids"][:, start : start + length],
            "cache_positions": np.arange(start, start + length, dtype="int32"),
            "cache_mask": mask,
        }
        outputs = model.step(step, cache)
        cache = outputs["cache"]
        parts.append(np.asarray(outputs["sequence_output"]))
        start += length
    return np.concatenate(parts, axis=1)


def pairs():
    """Every scheme with one set of switches, every set with both ways into the attention; other pairs are slow."""
    for positions, switches in itertools.product(POSITIONS, SWITCHES):
        seldom = switches != "grouped" and positions not in ("alibi", "default")
        yield pytest.param(positions, switches, marks=[pytest.mark.slow] if seldom else [])


@pytest.mark.parametrize(("positions", "switches"), pairs())
def test_cached_equals_whole(positions, switches):
    model, inputs = make(positions, switches), make_batch()
    real = inputs["padding_mask"] == 1
    whole = np.asarray(model.forward(inputs)["sequence_output"])
    np.testing.assert_allclose(run_cached(model, inputs, CHUNKS)[real], whole[real], atol=1e-5)


@pytest.mark.parametrize("family", ["gemma3_text", "smollm3", "cohere2", "exaone4"])
def test_kinds_of_other_rotary_positions_on_a_cache(family):
    """Kinds that turn by other angles than the others, or not at all; norms of 1 + gamma, of heads, and of outputs."""
    window = {} if family == "smollm3" else {"decoder__attention__sliding__window": 4}
    model, inputs = tiny.backbone(family, decoder__num_layers=6, **window), make_batch()
    assert len({kind.rotary for kind in model.config.decoder.attention.values()}) == 2
    real = inputs["padding_mask"] == 1
    whole = np.asarray(model.forward(inputs)["sequence_output"])
    cached = run_cached(model, inputs, CHUNKS)
    np.testing.assert_allclose(cached[real], whole[real], atol=1e-5 * max(1.0, np.abs(whole).max()))


def test_every_scheme_is_covered():
    assert {x.kind for x in POSITIONS.values() if isinstance(x, Rotary)} == set(ROTARY_KINDS)


@pytest.mark.parametrize("positions", ["learned", "default", "alibi"])
def test_padding_inside_a_row(positions):
    """Prompts padded on the right and gone on with: what padding leaves behind is not seen, nor counted."""
    model, inputs = make(positions, "sliding" if positions == "default" else "plain"), make_batch()
    inputs["padding_mask"] = np.array([[1] * 12, [1] * 6 + [0] * 3 + [1] * 3, [1, 1, 0, 1] * 3], "int32")
    real = inputs["padding_mask"] == 1
    whole = np.asarray(model.forward(inputs)["sequence_output"])
    np.testing.assert_allclose(run_cached(model, inputs, (9, 1, 1, 1))[real], whole[real], atol=1e-5)
    if positions != "default":  # a window counts slots, as the reference's does
        row = inputs["token_ids"][1:2][:, real[1]]
        alone = np.asarray(model({"token_ids": row, "padding_mask": np.ones_like(row)})["sequence_output"])
        np.testing.assert_allclose(whole[1, real[1]], alone[0], atol=1e-5)


@pytest.mark.parametrize("positions", list(POSITIONS))
def test_padding_on_the_left_changes_nothing(positions):
    model, inputs = make(positions), make_batch()
    whole = np.asarray(model(inputs)["sequence_output"])
    for row, count in enumerate(ROWS):
        ids = inputs["token_ids"][row : row + 1, LENGTH - count :]
        alone = np.asarray(model({"token_ids": ids, "padding_mask": np.ones_like(ids)})["sequence_output"])
        np.testing.assert_allclose(whole[row, LENGTH - count :], alone[0], atol=1e-5)


@pytest.mark.parametrize("positions", list(POSITIONS))
def test_the_future_changes_nothing(positions):
    model, inputs = make(positions, "grouped"), make_batch()
    whole = np.asarray(model(inputs)["sequence_output"])
    inputs["token_ids"][:, 8:] = 50
    changed = np.asarray(model(inputs)["sequence_output"])
    np.testing.assert_array_equal(
        changed[:, :8][inputs["padding_mask"][:, :8] == 1], whole[:, :8][inputs["padding_mask"][:, :8] == 1]
    )
    assert np.abs(changed[:, 8:] - whole[:, 8:]).max() > 1e-2


def test_dynamic_positions_beyond_the_trained_length():
    """All at once they are those of the whole row; one by one the keys keep what they were turned by, as elsewhere."""
    rotary = Rotary(kind="dynamic", factor=4.0, original_max_positions=8)
    model, inputs = make(decoder__attention__rotary=rotary), make_batch()
    whole = np.asarray(model.forward(inputs)["sequence_output"])
    np.testing.assert_allclose(run_cached(model, inputs, (12,))[0], whole[0], atol=1e-5)
    plain = make("default")
    assert np.abs(np.asarray(plain.forward(inputs)["sequence_output"])[0] - whole[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("positions", "switches"),
    [
        ("learned", "plain"),
        ("default", "sliding"),
        ("alibi", "grouped"),
        ("default", "convolutions"),
        ("default", "delta rule, gated"),
    ],
)
def test_packed_documents_do_not_see_each_other(positions, switches):
    model = make(positions, switches)
    ids = np.random.default_rng(0).integers(5, 95, (1, 12)).astype("int32")
    packed = np.array([[1] * 5 + [2] * 4 + [3] * 2 + [0]], "int32")
    together = np.asarray(model({"token_ids": ids, "padding_mask": packed})["sequence_output"])
    for document in (1, 2, 3):
        place = packed[0] == document
        one = ids[:, place]
        alone = np.asarray(model({"token_ids": one, "padding_mask": np.ones_like(one)})["sequence_output"])
        np.testing.assert_allclose(together[0, place], alone[0], atol=1e-5)


class Step(keras.layers.Layer):
    """The cached step of a model as a layer, which a functional model can hold."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def call(self, inputs, pairs):
        outputs = self.model.step(inputs, Cache(pairs))
        return outputs["sequence_output"], outputs["cache"].self_attention


@pytest.mark.parametrize(("positions", "switches"), [("learned", "plain"), ("yarn", "grouped"), ("alibi", "parallel")])
def test_step_as_a_functional_model_of_static_shapes(positions, switches):
    model, inputs = make(positions, switches), make_batch()
    size, cache = 4, model.new_cache(3, SLOTS).self_attention
    pairs = keras.tree.map_structure(lambda x: keras.Input(batch_shape=x.shape), cache)
    shapes = {"token_ids": (3, size), "cache_mask": (3, SLOTS), "cache_positions": (size,)}
    given = {name: keras.Input(batch_shape=shape, dtype="int32", name=name) for name, shape in shapes.items()}
    outputs, new = Step(model)(given, pairs)
    assert outputs.shape == (3, size, 32) and [x.shape for x in keras.tree.flatten(new)] == [
        x.shape for x in keras.tree.flatten(cache)
    ]
    graph = keras.Model([given, pairs], [outputs, new])
    assert {id(v) for v in model.variables} <= {id(v) for v in graph.variables}

    whole = np.asarray(model.forward(inputs)["sequence_output"])
    mask = np.pad(inputs["padding_mask"], ((0, 0), (0, SLOTS - LENGTH)), constant_values=1)
    for start in range(0, LENGTH, size):
        places = np.arange(start, start + size, dtype="int32")
        step = {"token_ids": inputs["token_ids"][:, places], "cache_mask": mask, "cache_positions": places}
        part, cache = graph([keras.tree.map_structure(tf.constant, step), cache])
        real = inputs["padding_mask"][:, places] == 1
        np.testing.assert_allclose(np.asarray(part)[real], whole[:, places][real], atol=1e-5)


def test_step_without_a_mask_takes_slots_as_positions():
    """What LiteRT-LM's runtime gives: one row, no padding."""
    for positions in POSITIONS:
        model, inputs = make(positions), make_batch()
        row = {name: array[:1] for name, array in inputs.items()}
        cache = model.new_cache(1, SLOTS)
        parts = []
        for places in (np.arange(7, dtype="int32"), np.arange(7, 12, dtype="int32")):
            step = {"token_ids": row["token_ids"][:, places], "cache_positions": places}
            outputs = model.step(step, cache)
            if places[0]:
                explicit = model.step({**step, "positions": places[None]}, cache)["sequence_output"]
                np.testing.assert_array_equal(np.asarray(explicit), np.asarray(outputs["sequence_output"]))
            parts.append(np.asarray(outputs["sequence_output"]))
            cache = outputs["cache"]
        whole = np.asarray(model.forward(row)["sequence_output"])
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


def test_more_tokens_than_slots():
    model, inputs = make(), make_batch()
    with pytest.raises(ValueError, match="12 new tokens do not fit into a cache of 8 slots: give a longer cache"):
        run_cached(model, {**inputs, "padding_mask": inputs["padding_mask"][:, :8]}, (12,), slots=8)


def test_language_model_steps():
    """Logits of the last token, of all or none, with a tied and an own head."""
    for tied in (True, False):
        lm = tiny.perturb(tasks.CausalLM(tiny.backbone("llama", heads__tied=tied)))
        inputs = make_batch()
        mask = np.pad(inputs["padding_mask"], ((0, 0), (0, 5)), constant_values=1)
        step = {
            "token_ids": inputs["token_ids"],
            "cache_positions": np.arange(LENGTH, dtype="int32"),
            "cache_mask": mask,
        }
        whole = np.asarray(lm(inputs))
        real = inputs["padding_mask"] == 1
        every, _ = lm.step(step, lm.new_cache(3, SLOTS), logits="all")
        last, cache = lm.step(step, lm.new_cache(3, SLOTS))
        none, again = lm.step(step, lm.new_cache(3, SLOTS), logits=None)
        assert whole.dtype == "float32" and none is None
        np.testing.assert_allclose(np.asarray(every)[real], whole[real], atol=1e-5)
        np.testing.assert_allclose(np.asarray(last)[:, 0], whole[:, -1], atol=1e-5)
        for ours, theirs in zip(keras.tree.flatten(cache), keras.tree.flatten(again), strict=True):
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_summary_is_the_last_real_token():
    model = make("default", "grouped")
    inputs = make_batch()
    inputs["padding_mask"][1] = [1] * 7 + [0] * 5
    inputs["padding_mask"][2] = [0, 1, 1, 1] + [0] * 8
    whole = np.asarray(model.forward(inputs)["sequence_output"])
    wanted = np.stack([whole[0, 11], whole[1, 6], whole[2, 3]])
    np.testing.assert_allclose(np.asarray(model.summary_vector(inputs)), wanted, atol=1e-6)


BATTERY = {
    "gpt2": {},
    "gpt_neox": {},
    "qwen2": SLIDING,
    "bloom": {"decoder__attention__heads": 4},
}


@pytest.mark.parametrize("family", list(BATTERY))
def test_battery(family, tmp_path):
    """Padding, graph forms, XLA, half precision, `.keras` files."""
    made = functools.partial(tiny.backbone, family, **BATTERY[family])
    model = batteries.check_model(made, tmp_path, half=family in ("qwen2", "bloom"))
    assert list(model.input) == ["token_ids", "padding_mask"] and list(model.output) == ["sequence_output"]


@pytest.mark.parametrize(
    "family", [x for x in tiny.PRESETS if [*tiny.config(x).stacks] == ["decoder"] and x not in BATTERY]
)
def test_keras_file(family, tmp_path):
    model = tiny.backbone(family)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again, Decoder) and again.config == model.config
    inputs = tiny.inputs_for(model)
    np.testing.assert_array_equal(
        np.asarray(again(inputs)["sequence_output"]), np.asarray(model(inputs)["sequence_output"])
    )
    json.dumps(keras.saving.serialize_keras_object(model))


def test_cache_follows_the_dtype_policy():
    for policy, dtype in (("float32", "float32"), ("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")):
        model = make("default", "grouped", dtype=policy)
        cache = model.new_cache(2, 5)
        assert {x.dtype.name for x in keras.tree.flatten(cache)} == {dtype}
        (keys, values), _ = cache.self_attention
        assert keys.shape == (2, 2, 5, 8) and values.shape == (2, 2, 8, 5) and cache.length == 5
        whole = np.asarray(keras.ops.cast(model.forward(make_batch())["sequence_output"], "float32"))
        cached = run_cached(model, make_batch(), (7, 5)).astype("float32")
        real = make_batch()["padding_mask"] == 1
        np.testing.assert_allclose(cached[real], whole[real], atol=1e-5 if policy == "float32" else 0.1)


def test_gradient_checkpointing_of_the_whole_model(plain_kernels):
    def gradients(flag):
        model = make("default", "grouped", gradient_checkpointing=flag, decoder__dropout=0.2, decoder__num_layers=1)
        for variable in model.variables:
            if variable.name == "seed_generator_state":
                variable.assign([5, 2])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(make_batch(), training=True)["sequence_output"] ** 2)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        ours, theirs = (np.asarray(tf.convert_to_tensor(x)) for x in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()))


def test_training_equals_inference_without_dropout(plain_kernels):
    cases = (("learned", "plain"), ("yarn", "grouped"), ("default", "sliding"), ("alibi", "parallel"))
    for positions, switches in cases:
        model, inputs = make(positions, switches), make_batch()
        real = inputs["padding_mask"] == 1
        trained, plain = (np.asarray(model(inputs, training=flag)["sequence_output"]) for flag in (True, False))
        np.testing.assert_allclose(trained[real], plain[real], atol=1e-5)


def test_too_long_for_the_table():
    model = make("learned with offset")  # 66 rows, two of them unused
    assert model.config.max_sequence_length == model.config.decoder.max_positions - 2
    with pytest.raises(
        ValueError, match=f"tokens long, but the model has {model.config.max_sequence_length} positions"
    ):
        model(tiny.inputs_for(model, length=model.config.max_sequence_length + 1))


def test_build_takes_presets():
    model = tfxformer.build("smollm2-135m", decoder__num_layers=1, vocabulary_size=64)
    assert isinstance(model, Decoder) and model.config.decoder.key_value_heads == 3
    shapes = {v.path: tuple(v.shape) for v in model.variables}
    assert shapes["decoder_block_0/self_attention/key/kernel"] == (576, 192)
