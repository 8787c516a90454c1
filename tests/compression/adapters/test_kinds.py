"""BitFit, (IA)^3, bottlenecks and AdaLoRA as adapters of a model: what is trained, merging, files, export, KerasHub."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from adapter_cases import adapted, classifier, hub_model, language_model, outputs, randomize, rows

from tfxformer import checkpoints, export, generation
from tfxformer.checkpoints import CheckpointError
from tfxformer.compression import IA3, AdaLoRA, Adapters, BitFit, Bottleneck, sparsity_report, trainable_table

pytestmark = pytest.mark.usefixtures("eager")
KINDS = {"adalora": AdaLoRA(rank=3), "ia3": IA3(), "bottleneck": Bottleneck(size=4), "bitfit": BitFit()}
HEAD = {"classifier/output/kernel", "classifier/output/bias"}
MERGED = [name for name in KINDS if name != "bottleneck"]


def one_layer():
    return classifier(encoder__num_layers=1)


def gpt2():
    return language_model("gpt2")


def with_kind(kind, model, seed=1):
    """The `Adapters` of a model with one active adapter of random values."""
    adapters = Adapters(model)
    adapters.add("films", kind)
    if isinstance(kind, BitFit):
        generator = np.random.default_rng(seed)
        for variable in model.trainable_variables:
            variable.assign_add(generator.normal(0, 0.2, variable.shape).astype("float32"))
    randomize(model, seed)
    return adapters


def trained(model):
    return {variable.path for variable in model.trainable_variables}


def wanted_variables(name):
    """By hand, for the tiny BERT classifier of two blocks, but for the head."""
    halves = [f"encoder_block_{index}/{half}" for index in (0, 1) for half in ("self_attention", "feed_forward")]
    if name == "bottleneck":
        parts = [f"{side}_{leaf}" for side in ("down", "up") for leaf in ("kernel", "bias")]
        return {f"{half}/output/films/{part}" for half in halves for part in parts}
    if name == "ia3":
        attention = {f"{half}/{layer}/films/ia3_scale" for half in halves[::2] for layer in ("key", "value")}
        return attention | {f"{half}/output/films/ia3_scale" for half in halves[1::2]}
    dense = {f"{half}/{layer}" for half in halves[::2] for layer in ("query", "key", "value", "output")}
    dense |= {f"{half}/{layer}" for half in halves[1::2] for layer in ("expand", "output")} | {"pooler"}
    if name == "adalora":
        return {f"{layer}/films/lora_{part}" for layer in dense for part in "abe"}
    norms = {f"encoder_block_{index}/{half}_norm/beta" for index in (0, 1) for half in ("attention", "feed_forward")}
    return {f"{layer}/bias" for layer in dense} | norms | {"embedding_norm/beta"}


@pytest.mark.parametrize("name", list(KINDS))
def test_fit_trains_it_and_the_head_alone(name, plain_kernels):
    model = classifier()
    before, plain = tiny.weights(model), outputs(model)
    Adapters(model).add("films", KINDS[name])
    np.testing.assert_array_equal(outputs(model), plain)
    model.compile(keras.optimizers.Adam(0.01))
    x, y = rows(model, 8)
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    after = tiny.weights(model)
    moved = {path for path, value in after.items() if path not in before or (value != before[path]).any()}
    # The scores' softmax does not see what all keys have in common: their bias has no gradient but rounding.
    unseen = {path for path in wanted_variables(name) if path.endswith("key/bias")}
    assert trained(model) == wanted_variables(name) | HEAD
    assert moved | unseen == trained(model) | unseen
    assert trainable_table(model).total.trainable == sum(after[path].size for path in trained(model))


@pytest.mark.parametrize(("make", "name"), [*((one_layer, name) for name in KINDS), (gpt2, "bottleneck")])
def test_the_training_graph_is_that_of_inference(name, make):
    """Loss and gradients by the fast kernels, beside those through the adapted kernels that inference reads."""
    model = make()
    with_kind(KINDS[name], model)
    inputs = tiny.inputs_for(model)
    variables = [variable.value for variable in model.trainable_variables if not variable.path.endswith("key/bias")]

    def result(training):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.nn.softmax(model(inputs, training=training)) ** 2)
        return loss, tape.gradient(loss, variables)

    (loss, gradients), (wanted, others) = result(True), result(False)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    largest = max(float(tf.reduce_max(tf.abs(one))) for one in others)
    for one, other in zip(gradients, others, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * largest)


# ---- merging --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MERGED)
def test_merge_is_exact_and_comes_back(name):
    model = one_layer()
    paths, whole = list(tiny.weights(model)), trained(model)
    adapters = with_kind(KINDS[name], model)
    weights, wanted = tiny.weights(model), outputs(model)
    adapters.merge()
    np.testing.assert_allclose(outputs(model), wanted, atol=1e-6)
    assert list(tiny.weights(model)) == paths and trained(model) == whole
    if name == "ia3":
        scale = weights["encoder_block_0/self_attention/value/films/ia3_scale"]
        for leaf in ("kernel", "bias"):
            path = f"encoder_block_0/self_attention/value/{leaf}"
            np.testing.assert_allclose(tiny.weights(model)[path], weights[path] * scale, rtol=1e-6)
    adapters.unmerge()
    for path, value in weights.items():
        np.testing.assert_array_equal(tiny.weights(model)[path], value, err_msg=path)
    np.testing.assert_array_equal(outputs(model), wanted)


def test_a_bottleneck_cannot_be_merged(tmp_path):
    model = one_layer()
    adapters = with_kind(KINDS["bottleneck"], model)
    before = outputs(model)
    with pytest.raises(ValueError, match=r"is computed beside its layers .*: no kernel can hold it"):
        adapters.merge()
    with pytest.raises(CheckpointError, match="has the adapter films"):
        checkpoints.save_pretrained(tmp_path / "folder", model.backbone, model.backbone.config)
    assert not adapters.merged
    np.testing.assert_array_equal(outputs(model), before)


def test_merging_into_pruned_kernels_says_so():
    model = classifier()
    for layer in (model.get_layer(f"encoder_block_{index}").feed_forward.expand for index in (0, 1)):
        kernel = np.array(layer.kernel)
        kernel[::2] = 0
        layer.kernel.assign(kernel)
    adapters = adapted(model, targets="expand")
    with pytest.warns(UserWarning, match=r"zeros of 2 pruned kernels \(50% of them\).*ConstantSparsity\(0.5"):
        adapters.merge()
    assert sparsity_report(model).kernels.sparsity < 0.01
    adapters.unmerge()
    adapters.activate(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_kind(IA3(targets="expand", feed_forward=()), model).merge()  # zeros stay zeros
    assert (np.asarray(layer.kernel) == 0).mean() == 0.5


# ---- several, files -------------------------------------------------------------------------------------------


def test_switching_between_kinds():
    model = one_layer()
    base, whole, adapters, wanted = outputs(model), trained(model), Adapters(model), {}
    for seed, (name, kind) in enumerate(KINDS.items()):
        adapters.add(name, kind)
        np.testing.assert_array_equal(outputs(model), base)
        for variable in model.trainable_variables:
            change = np.random.default_rng(seed).normal(0, 0.2, variable.shape)
            variable.assign_add(change.astype("float32"))
        wanted[name] = outputs(model)
        assert np.abs(wanted[name] - base).max() > 0.01
    for name in ("ia3", None, "bitfit", "bottleneck", "bitfit", "adalora", None):
        adapters.activate(name)
        np.testing.assert_array_equal(outputs(model), base if name is None else wanted[name])
    assert trained(model) == whole


@pytest.mark.parametrize("name", list(KINDS))
def test_keras_file(name, tmp_path):
    model = one_layer()
    whole = trained(model)
    with_kind(KINDS[name], model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(again), outputs(model))
    assert trained(again) == trained(model)
    adapters = Adapters(again)
    assert adapters.active == "films"
    adapters.activate(None)
    assert trained(again) == whole


@pytest.mark.parametrize(("make", "name"), [*((one_layer, name) for name in KINDS), (gpt2, "adalora"), (gpt2, "ia3")])
def test_adapter_file(name, make, tmp_path):
    """In GPT-2's files query, key and value are one."""
    model = make()
    adapters = with_kind(KINDS[name], model)
    wanted = outputs(model)
    adapters.save(tmp_path / "films")
    config = json.loads((tmp_path / "films" / "adapter_config.json").read_text())
    assert config["peft_type"] == name.upper()
    fresh = make()
    before = outputs(fresh)
    again = Adapters(fresh)
    again.load(tmp_path / "films", "again")
    np.testing.assert_allclose(outputs(fresh), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    again.activate(None)
    np.testing.assert_array_equal(outputs(fresh), before)


# ---- generation and export ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bottleneck", "ia3"])
def test_generation_sees_it(name, plain_kernels):
    """Greedy, on a cache, beside the argmax of whole sequences."""
    model = language_model("gpt2", decoder__num_layers=1)
    with_kind(KINDS[name], model)
    ids = [5, 6, 7]
    for _ in range(3):
        batch = {"token_ids": np.array([ids], "int32"), "padding_mask": np.ones((1, len(ids)), "int32")}
        ids.append(int(np.argmax(model(batch)[0, -1])))
    found = generation.generate(model, [[5, 6, 7]], max_new_tokens=3, jit_compile=False)
    assert list(found[0]) == ids[3:]


@pytest.mark.parametrize("quantization", ["float32", pytest.param("dynamic_int8", marks=pytest.mark.slow)])
def test_export_of_an_unmerged_bottleneck(quantization, tiny_tokenizer, tmp_path):
    model = classifier(tiny_tokenizer)
    plain = model.predict(tiny.TEXTS[:3], verbose=0)
    with_kind(KINDS["bottleneck"], model)
    wanted = model.predict(tiny.TEXTS[:3], verbose=0)
    export.export_litert(model, tmp_path / "model.tflite", quantization, sequence_length=16)
    found = export.LiteRTModel(tmp_path / "model.tflite").predict(tiny.TEXTS[:3])
    tolerance = 1e-5 if quantization == "float32" else 0.03
    assert np.abs(wanted - plain).max() > 0.1
    np.testing.assert_allclose(found, wanted, atol=tolerance)


# ---- other models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"), [*(("bert", kind) for kind in KINDS), ("gpt2", "ia3"), ("gpt2", "bottleneck")]
)
def test_keras_hub(kind, name, tmp_path):
    model = tiny.perturb(hub_model(name))
    generator = np.random.default_rng(2)
    x = {"token_ids": generator.integers(1, 60, (8, 6)).astype("int32"), "padding_mask": np.ones((8, 6), "int32")}
    if name == "bert":
        x["segment_ids"] = np.zeros((8, 6), "int32")
    before = np.asarray(model(x))
    adapters = Adapters(model)
    adapters.add("new", KINDS[kind])
    np.testing.assert_array_equal(model(x), before)
    adapters.remove("new")
    adapters = with_kind(KINDS[kind], model)
    wanted = np.asarray(model(x))
    assert np.abs(wanted - before).max() > 1e-3
    adapters.save(tmp_path / "films")
    if kind in MERGED:
        adapters.merge()
        np.testing.assert_allclose(model(x), wanted, rtol=1e-5, atol=1e-6)
        adapters.unmerge()
    adapters.activate(None)
    np.testing.assert_array_equal(model(x), before)
    adapters.load(tmp_path / "films", "again")
    np.testing.assert_allclose(model(x), wanted, rtol=1e-5, atol=1e-6)


# ---- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bottleneck(size=0), "size .* got 0"),
        (lambda: Bottleneck(activation="nothing"), "Unknown activation"),
        (lambda: IA3(targets=(), feed_forward=()), "neither targets nor feed_forward"),
        (lambda: AdaLoRA(orthogonality=-1), "orthogonality .* got -1"),
        (lambda: AdaLoRA(rank=0), "AdaLoRA: rank .* got 0"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    for wrong in (lambda: IA3(targets=None), lambda: Bottleneck(targets=(3,)), lambda: BitFit(also_train=3)):
        with pytest.raises(TypeError, match="are names of layers, or a function"):
            wrong()


def test_models_that_do_not_fit():
    with pytest.raises(ValueError, match="has no biases"):
        Adapters(language_model("llama")).add("films", BitFit())
    with pytest.raises(ValueError, match=r"IA3: targets=\('k_proj',\) match no layer"):
        Adapters(classifier()).add("films", IA3(targets="k_proj"))
    with pytest.raises(ValueError, match="IA3: encoder_block_0/self_attention/key is among both"):
        Adapters(classifier()).add("films", IA3(feed_forward="key"))
    for targets in ("query", "pooler"):
        with pytest.raises(ValueError, match=rf"Bottleneck: .*{targets} is inside a half, has an activation"):
            Adapters(classifier()).add("films", Bottleneck(targets=targets))
    heads = keras.layers.EinsumDense("btd,dnh->btnh", (None, 2, 3), bias_axes="h", name="one")
    model = keras.Sequential([keras.Input((5, 4)), heads])
    with pytest.raises(ValueError, match=r"one is a keras.*whose bias \(3,\) is not one for each of its 6 outputs"):
        Adapters(model).add("films", IA3(targets="one", feed_forward=(), also_train=()))
