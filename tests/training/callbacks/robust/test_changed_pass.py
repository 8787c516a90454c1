"""One step of adversarial training and R-Drop, against tapes over their papers' formulas; a minute with the roads."""

import os
import subprocess

import keras
import numpy as np
import pytest
import replicas
import robust_cases
import tiny

from tfxformer import tasks, training
from tfxformer.training.callbacks.robust.adversarial import move
from tfxformer.training.callbacks.robust.r_drop import divergence
from tfxformer.training.step.passes import pass_changes

KINDS = ("adversarial", "r_drop")


def same(found, wanted, tolerance=1e-5):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "compiled",
    [{}, {"jit_compile": True}, {"run_eagerly": True}, {"steps": 2}],
    ids=lambda one: next(iter(one), "graph"),
)
def test_one_step(kind, compiled):
    model = robust_cases.make(drops=kind == "r_drop", **compiled)
    before = model.get_weights()
    batch_size = robust_cases.ROWS // compiled.get("steps", 1)
    loss, after = robust_cases.fit(model, robust_cases.callback(kind), robust_cases.WEIGHTS, batch_size)
    wanted, weights = robust_cases.BY_HAND[kind](before, robust_cases.WEIGHTS)
    same(after, weights)
    assert loss == pytest.approx(wanted, abs=1e-5)


@pytest.mark.road
@pytest.mark.parametrize("kind", KINDS)
def test_replicas_and_accumulation(kind):
    after, wanted = replicas.run(robust_cases.of_replicas, kind)
    same(after, wanted)


@pytest.mark.road
def test_contrastive_losses_of_replicas_are_refused():
    assert "train it on one device" in replicas.run(robust_cases.said_of_contrastive)


def test_both_together_and_an_end():
    model = robust_cases.make(drops=True)
    robust_cases.fit(model, training.RDrop(1.0))
    both = [training.RDrop(1.0), training.AdversarialTraining(1.0)]
    model.fit(robust_cases.IDS, robust_cases.LABELS, verbose=0, callbacks=both, epochs=2)
    kernel = model.get_layer("head").kernel
    before = np.array(kernel)
    model.fit(robust_cases.IDS, robust_cases.LABELS, verbose=0)
    model.fit(robust_cases.IDS, robust_cases.LABELS, verbose=0)
    assert np.isfinite(before).all() and not np.array_equal(before, np.array(kernel))


def of_both(p, q):
    """Kullback and Leibler's divergence of a label that is there or not."""
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


KINDS_OF_LOGITS = {
    "softmax": lambda p, q: np.sum((np.log(p) - np.log(q)) * (p - q), -1) / 2,
    "sigmoid": lambda p, q: np.mean(of_both(p, q) + of_both(q, p), -1) / 2,
}


@pytest.mark.parametrize("kind", KINDS_OF_LOGITS)
def test_divergences(kind):
    first, second = np.random.default_rng(0).normal(size=(2, 4, 5, 3))
    chances = {
        "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    }[kind]
    wanted = KINDS_OF_LOGITS[kind](chances(first), chances(second))
    np.testing.assert_allclose(divergence(kind, first, second), wanted, rtol=1e-4)


def test_moves_have_their_norm():
    gradient = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32") * np.float32(1e-25)
    gradient[1] = 0.0
    found = np.array(move(gradient, 0.5))
    np.testing.assert_allclose(np.linalg.norm(found.reshape(3, -1), axis=1), [0.5, 0.0, 0.5], rtol=1e-6)


# Each traces three passes. Those without a mark, and the roads, have every task and every precision once.
TASKS, POLICIES = ("labels", "tags", "spans", "language"), ("float32", "mixed_bfloat16", "mixed_float16")
QUICK = {
    ("labels", "mixed_float16"): [],
    ("language", "float32"): [],
    ("tags", "mixed_bfloat16"): pytest.mark.road,
    ("spans", "float32"): pytest.mark.road,
}


@pytest.mark.parametrize(
    ("task", "policy"),
    [
        pytest.param(task, policy, marks=QUICK.get((task, policy), pytest.mark.slow))
        for task in TASKS
        for policy in POLICIES
    ],
)
def test_tasks(task, policy, plain_kernels):
    """Each task trains with both, in every precision, and its metrics stay those of one pass."""
    family, stack = ("gpt2", "decoder") if task == "language" else ("bert", "encoder")
    backbone = tiny.backbone(family, dtype=policy, **{f"{stack}__dropout": 0.1, f"{stack}__num_layers": 1})
    model = {
        "labels": lambda: tasks.TextClassifier(backbone, ["a", "b"], "multi_label_classification"),
        "tags": lambda: tasks.TokenClassifier(backbone, ["O", "B"]),
        "spans": lambda: tasks.QuestionAnswering(backbone),
        "language": lambda: tasks.CausalLM(backbone),
    }[task]()
    x = tiny.batch(8, token_types=backbone.config.token_types) if task != "language" else tiny.batch(8, token_types=1)
    rng, length = np.random.default_rng(0), x["token_ids"].shape[1]
    y = {
        "labels": rng.integers(0, 2, (8, 2)),
        "tags": np.where(x["padding_mask"], rng.integers(0, 2, (8, length)), -100),
        "spans": np.sort(rng.integers(0, 3, (8, 2)), axis=1),
        "language": x["token_ids"],
    }[task].astype("int32")
    model.compile(learning_rate=1e-3)
    both = [training.RDrop(1.0), training.AdversarialTraining(0.5)]
    found = model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=both).history
    assert np.isfinite(found["loss"]).all() and found["loss"][0] > 0


@pytest.mark.road
def test_gradient_checkpointing_changes_nothing(plain_kernels):
    losses = []
    for checkpointing in (False, True):
        backbone = tiny.backbone(gradient_checkpointing=checkpointing, encoder__num_layers=1)
        model = tiny.perturb(tasks.TextClassifier(backbone, ["a", "b"]))
        model.compile(keras.optimizers.SGD(0.1))
        x, y = tiny.batch(8), np.arange(8) % 2
        found = model.fit(x, y, epochs=2, verbose=0, callbacks=[training.AdversarialTraining(1.0)], shuffle=False)
        losses.append(found.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_refusals():
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"training step of a training\.DistributedModel"):
        plain.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0, callbacks=[training.RDrop()])
    with pytest.raises(ValueError, match=r"nothing in .* is dropped"):
        robust_cases.fit(robust_cases.make(), training.RDrop())
    inputs = keras.Input((3,))
    model = training.DistributedModel(inputs, keras.layers.Dense(2)(inputs))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="several losses, or one"):
        model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0, callbacks=[training.RDrop()])
    with pytest.raises(ValueError, match="no Embedding"):
        model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0, callbacks=[training.AdversarialTraining()])
    with pytest.raises(ValueError, match="epsilon=-1"):
        training.AdversarialTraining(-1)


def test_what_an_interrupted_fit_leaves_ends_with_the_next():
    class Interrupts(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = robust_cases.make()
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            robust_cases.IDS, robust_cases.LABELS, verbose=0, callbacks=[training.AdversarialTraining(), Interrupts()]
        )
    assert pass_changes(model)
    model.fit(robust_cases.IDS, robust_cases.LABELS, verbose=0)
    assert not pass_changes(model)


PYTHON = os.environ.get("TFXFORMER_JAX_PYTHON")


@pytest.mark.client
@pytest.mark.skipif(not PYTHON, reason="TFXFORMER_JAX_PYTHON names no Python with JAX: see requirements-jax.txt")
def test_jax_trains_alike(tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([PYTHON, robust_cases.__file__, tmp_path / "jax.npz"], env=environment, check=True)
    here = robust_cases.all_kinds() | {f"accumulated {name}": one for name, one in robust_cases.all_kinds(2).items()}
    with np.load(tmp_path / "jax.npz") as there:
        assert sorted(there) == sorted(here)
        for name, wanted in here.items():
            np.testing.assert_allclose(there[name], wanted, atol=1e-5, err_msg=name)
