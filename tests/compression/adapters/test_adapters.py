"""Named adapters on one model: what is trained, switching, merging, Keras files, checkpoints, strategies."""

import keras
import numpy as np
import pytest
import replicas
import tiny
from adapter_cases import (
    QUERY_AND_VALUE,
    adapted,
    classifier,
    everything,
    language_model,
    outputs,
    randomize,
    rows,
    two_replicas_and_one_device,
)

from tfxformer import checkpoints, compression, export, tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.compression import Adapters, LoRA

pytestmark = pytest.mark.usefixtures("eager")


def fit(model, epochs=2, optimizer=None, **arguments):
    x, y = rows(model, 8)
    if optimizer is not None:
        model.compile(optimizer)
    return model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **arguments)


def moved(before, model):
    return {path for path, value in tiny.weights(model).items() if path not in before or (before[path] != value).any()}


# ---- training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        pytest.param({}, None, id="plain"),
        pytest.param({"dropout": 0.2}, "mixed_bfloat16", id="dropout"),
        pytest.param({"targets": QUERY_AND_VALUE, "rslora": True}, None, id="query-and-value"),
    ],
)
def test_fit_trains_the_adapter_and_the_head_alone(options, dtype, plain_kernels):
    model = classifier(dtype=dtype)
    before = tiny.weights(model)
    adapters = Adapters(model)
    adapters.add("films", LoRA(rank=2, **options))
    history = fit(model, optimizer=keras.optimizers.Adam(0.01))
    assert history.history["loss"][-1] < history.history["loss"][0]
    factors = {v.path for v in model.variables if v.name in ("lora_a", "lora_b")}
    assert len(factors) == 2 * (4 if "targets" in options else 13)
    assert moved(before, model) == factors | {"classifier/output/kernel", "classifier/output/bias"}


def test_texts_and_the_default_optimizer(tiny_tokenizer, traced):
    """The one fit here that runs the training kernels as CPUs do, in a graph."""
    model = classifier(tiny_tokenizer, encoder__num_layers=1)
    model.fit(tiny.TEXTS, tiny.LABELS, batch_size=8, verbose=0)  # an optimizer that knows other variables
    Adapters(model).add("films", LoRA(dropout=0.1, targets=QUERY_AND_VALUE))
    before = tiny.weights(model)
    model.fit(tiny.TEXTS, tiny.LABELS, batch_size=8, verbose=0)
    assert len(moved(before, model)) == 4 + 2


def test_equals_training_written_by_hand(plain_kernels):
    """One SGD step on a factor, beside finite differences of the merged model's loss."""
    model = classifier()
    adapters = adapted(model, also_train=())
    x, y = rows(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    chosen = next(v for v in model.trainable_variables if v.path.endswith("block_1/self_attention/value/films/lora_b"))
    start, step = np.asarray(chosen), 1e-2
    wanted = {(0, 3): 0.0, (1, 8): 0.0, (2, 30): 0.0}
    for place in wanted:
        sides = []
        for sign in (1, -1):
            other = start.copy()
            other[place] += sign * step
            chosen.assign(other)
            adapters.merge()
            sides.append(float(loss(y, model(x))))
            adapters.unmerge()
        wanted[place] = (sides[0] - sides[1]) / (2 * step)
    chosen.assign(start)
    model.compile(keras.optimizers.SGD(1.0))
    model.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    found = {place: (start - np.asarray(chosen))[place] for place in wanted}
    largest = max(map(abs, wanted.values()))
    assert largest > 1e-3
    assert found == pytest.approx(wanted, abs=2e-2 * largest)


def after_one_epoch(batch_size, jit_compile=False, **optimizer):
    model = classifier(encoder__num_layers=1)
    adapted(model)
    model.compile(keras.optimizers.SGD(0.1, **optimizer), jit_compile=jit_compile)
    x, y = rows(model)
    model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0)
    return tiny.weights(model)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_accumulation_and_xla_give_the_same_weights(jit_compile, plain_kernels, traced):
    """Two batches of an accumulation, in XLA, are one of twice the rows."""
    wanted = after_one_epoch(16)
    found = after_one_epoch(8, jit_compile=jit_compile, gradient_accumulation_steps=2)
    for path, value in wanted.items():
        np.testing.assert_allclose(found[path], value, atol=1e-6, err_msg=path)


def test_gradient_checkpointing_trains_the_same(plain_kernels):
    results = []
    for checkpointing in (False, True):
        keras.utils.set_random_seed(0)
        model = classifier(encoder__num_layers=1, gradient_checkpointing=checkpointing)
        adapted(model, dropout=0.3)
        model.get_layer("encoder_block_0").seed_generator.state.assign([1, 2])
        fit(model, optimizer=keras.optimizers.SGD(0.1))
        results.append(tiny.weights(model))
    for path, value in results[0].items():
        np.testing.assert_allclose(results[1][path], value, atol=1e-6, err_msg=path)


@pytest.mark.slow
def test_two_replicas_train_as_one_device():
    result = replicas.run(two_replicas_and_one_device)
    assert result["difference"] <= 1e-6
    assert len(result["moved"]) == 4 * 2 + 2


def test_prune_takes_what_is_trained(plain_kernels):
    """Beside frozen kernels and factors, layers that are trained whole are pruned as ever."""
    model = classifier(encoder__num_layers=1)
    before = tiny.weights(model)
    Adapters(model).add("films", LoRA(also_train=("feed_forward/output", "classifier")))
    fit(model, callbacks=[compression.Prune(compression.ConstantSparsity(0.5, begin_step=0))])
    after = tiny.weights(model)
    assert (after["encoder_block_0/feed_forward/output/kernel"] == 0).mean() == 0.5
    frozen = "encoder_block_0/feed_forward/expand/kernel"
    np.testing.assert_array_equal(after[frozen], before[frozen])


# ---- several --------------------------------------------------------------------------------------------------


def test_switching_gives_each_its_own_outputs_and_head(tmp_path, plain_kernels):
    model = classifier(encoder__num_layers=1)
    base, weights, whole = outputs(model), tiny.weights(model), len(model.trainable_variables)
    adapters = Adapters(model)
    wanted = {None: base}
    for seed, name in enumerate(("films", "books")):
        adapters.add(name, LoRA(rank=2 + seed, targets=("query", "expand")[seed]))
        np.testing.assert_array_equal(outputs(model), base)  # a new one changes nothing, whoever was active before
        randomize(model, seed)
        fit(model, optimizer=keras.optimizers.Adam(0.01))
        wanted[name] = outputs(model)
    assert adapters.names == ["films", "books"]
    for name in ("films", None, "books", "films", None):
        adapters.activate(name)
        assert adapters.active == name
        np.testing.assert_array_equal(outputs(model), wanted[name])
        predicted = model.logits(tiny.inputs_for(model), verbose=0)
        np.testing.assert_allclose(predicted, wanted[name], atol=1e-5)
    assert not moved(weights, model) and tiny.weights(model).keys() == weights.keys()
    assert len(model.trainable_variables) == whole
    adapters.remove("books")
    assert adapters.names == ["films"]


def test_generation_and_scores_follow_the_switch(tiny_tokenizer):
    model = language_model(tokenizer=tiny_tokenizer, decoder__num_layers=1)
    adapters = adapted(model, targets=everything)

    def results():
        return model.generate([[5, 6, 7]], max_new_tokens=4, jit_compile=False), model.score(["good film"])[0]

    text, score = results()
    adapters.activate(None)
    base, base_score = results()
    assert text != base and score != base_score
    adapters.activate("films")
    again, again_score = results()
    assert again == text and again_score == score
    adapters.merge()
    merged, merged_score = results()
    assert merged == text and abs(merged_score - score) < 1e-5


def test_names():
    adapters = adapted(classifier())
    with pytest.raises(ValueError, match="adapter 'films' already"):
        adapters.add("films")
    with pytest.raises(ValueError, match="no adapter 'books'; known: films"):
        adapters.activate("books")
    for name in ("", "a/b", "a.b", "a b", None):
        with pytest.raises(ValueError, match="name is of letters, digits"):
            adapters.add(name)
    with pytest.raises(TypeError, match=r"wants a compression.LoRA, .*; got int"):
        adapters.add("books", 8)


def test_a_refused_adapter_leaves_everything():
    model = classifier()
    adapters = adapted(model)
    before = outputs(model)
    with pytest.raises(ValueError, match="match no layer"):
        adapters.add("books", LoRA(targets="q_proj"))
    assert adapters.active == "films" and adapters.names == ["films"]
    np.testing.assert_array_equal(outputs(model), before)
    with pytest.raises(ValueError, match="has no weights yet"):
        Adapters(keras.Sequential([keras.layers.Dense(2)]))


# ---- merging --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
def test_merge_and_unmerge(dtype):
    model = classifier(dtype=dtype)
    plain, whole = tiny.weights(model), len(model.trainable_variables)
    adapters = adapted(model, targets=everything)
    weights, wanted = tiny.weights(model), outputs(model)
    adapters.merge()
    assert adapters.merged and adapters.active == "films"
    np.testing.assert_allclose(outputs(model), wanted, atol=1e-6 if dtype is None else 3e-2)
    merged = tiny.weights(model)
    assert merged.keys() == plain.keys()
    for path in plain:
        if path.endswith("/kernel") and not path.startswith("classifier"):
            factors = [weights[path.replace("kernel", f"films/{name}")] for name in ("lora_a", "lora_b")]
            np.testing.assert_allclose(merged[path], plain[path] + 2.0 * factors[0] @ factors[1], atol=1e-6)
    assert len(model.trainable_variables) == whole
    adapters.unmerge()
    assert not moved(weights, model)
    np.testing.assert_array_equal(outputs(model), wanted)


def test_merging_what_cannot_be():
    model = classifier()
    adapters = Adapters(model)
    with pytest.raises(ValueError, match="No adapter is active"):
        adapters.merge()
    with pytest.raises(ValueError, match="nothing to take back"):
        adapters.unmerge()
    adapters.add("films")
    randomize(model)
    adapters.merge()
    with pytest.raises(ValueError, match="'films' is merged already"):
        adapters.merge()
    for refused in (lambda: adapters.add("books"), lambda: adapters.activate(None), lambda: adapters.remove("films")):
        with pytest.raises(ValueError, match="is merged into the kernels: unmerge"):
            refused()
    fit(model)
    with pytest.raises(ValueError, match="kernels or biases have changed since the merge"):
        adapters.unmerge()


# ---- files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.2])
def test_keras_file_brings_adapter_optimizer_and_frozen_base(tmp_path, dropout, plain_kernels):
    model = classifier(encoder__num_layers=1)
    whole = len(model.trainable_variables)
    adapted(model, dropout=dropout)
    fit(model, optimizer=keras.optimizers.Adam(0.01))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(again), outputs(model))
    assert [v.path for v in again.trainable_variables] == [v.path for v in model.trainable_variables]
    for ours, theirs in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    before = tiny.weights(again)
    fit(again)
    assert len(moved(before, again)) == 2 * 2 + 2
    adapters = Adapters(again)
    assert adapters.active == "films"
    adapters.save(tmp_path / "films")
    adapters.activate(None)
    assert len(again.trainable_variables) == whole


def test_keras_file_of_a_backbone(tmp_path):
    model = tiny.backbone("gpt2")
    adapted(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(again), outputs(model))
    assert {v.name for v in again.trainable_variables} == {"lora_a", "lora_b"}


def test_keras_file_of_several_tasks(tmp_path):
    """Their heads have one path; the encoder that they share is adapted by one of them."""
    backbone = tiny.backbone("bert")
    parts = {name: tasks.TextClassifier(backbone, ["a", "b"], name=name) for name in ("films", "books")}
    model = tiny.perturb(tasks.MultiTask(parts))
    with pytest.raises(ValueError, match=r"have the path 'classifier/output'.*adapt one task"):
        Adapters(model)
    adapted(parts["films"])
    inputs = tiny.inputs_for(parts["films"])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for name, part in parts.items():
        np.testing.assert_array_equal(np.asarray(again.tasks[name](inputs)), np.asarray(part(inputs)))
    assert [v.path for v in again.trainable_variables] == [v.path for v in model.trainable_variables]


def test_checkpoint_of_the_merged_model(tiny_tokenizer, tmp_path):
    model = classifier(tiny_tokenizer, encoder__num_layers=1)
    adapters = adapted(model)
    wanted = outputs(model)
    with pytest.raises(CheckpointError, match="has the adapter films"):
        model.save_pretrained(tmp_path / "folder")
    with pytest.raises(CheckpointError, match="has the adapter films"):
        checkpoints.save_pretrained(tmp_path / "folder", model.backbone, model.backbone.config)
    assert not (tmp_path / "folder").exists()
    adapters.merge()
    model.save_pretrained(tmp_path / "folder")
    again = tasks.TextClassifier.from_pretrained(tmp_path / "folder")
    np.testing.assert_allclose(outputs(again), wanted, atol=1e-6)


def test_export_of_the_merged_model(tiny_tokenizer, tmp_path):
    model = classifier(tiny_tokenizer, encoder__num_layers=1)
    adapters = adapted(model)
    wanted = model.predict(tiny.TEXTS[:3], verbose=0)
    adapters.merge()
    export.export_litert(model, tmp_path / "model.tflite", "float32", sequence_length=16)
    np.testing.assert_allclose(export.LiteRTModel(tmp_path / "model.tflite").predict(tiny.TEXTS[:3]), wanted, atol=1e-5)
