"""KerasHub's backbones go the whole road: distilled while they are pruned, adapted, and exported."""

import keras
import numpy as np
import pytest
import tiny
from distillation_cases import divergence
from pruning_cases import polynomial, watcher, zeros_at

from tfxformer import export
from tfxformer.compression import (
    Adapters,
    ConstantSparsity,
    Distiller,
    HiddenStateLoss,
    LogitsLoss,
    LoRA,
    PolynomialDecay,
    Prune,
)

LENGTH, VOCABULARY = 8, 60
# Query, key, value, output and two of feed-forward; BERT's pooler is the seventh.
KERNELS = {"bert": 7, "gpt2": 6}
pytestmark = [pytest.mark.usefixtures("eager"), pytest.mark.road]


def model(family, layers):
    """A backbone with a head of three labels, every weight random; its encoder block or blocks first."""
    hub = pytest.importorskip("keras_hub")  # 3 s, which no process spends that only collects
    sizes = {"vocabulary_size": VOCABULARY, "num_heads": 2, "hidden_dim": 32, "intermediate_dim": 64, "dropout": 0.0}
    kind = {"bert": hub.models.BertBackbone, "gpt2": hub.models.GPT2Backbone}[family]
    backbone = kind(**sizes, num_layers=layers, max_sequence_length=LENGTH)
    outputs = backbone.output["pooled_output"] if family == "bert" else backbone.output[:, -1]
    return tiny.perturb(keras.Model(backbone.input, keras.layers.Dense(3, name="head")(outputs)), seed=layers)


def batch(names, rows, seed=0):
    inputs = tiny.batch(rows, LENGTH, seed=seed)
    inputs["token_ids"] %= VOCABULARY
    return {name: inputs[name] for name in names}


def kernels(of):
    """Those that are pruned, found by name; KerasHub's attention keeps them [D, N, H] and [N, H, D]."""
    found = [weight for weight in of.weights if weight.path.endswith("/kernel") and "head/" not in weight.path]
    return {weight.path: np.asarray(weight) for weight in found}


def exported(of, path, mode, tolerance):
    """The file says what Keras says of inputs that the export has not seen; returns the report."""
    report = export.export_litert(of, path, mode, sequence_length=LENGTH)
    litert = export.LiteRTModel(path)
    inputs = batch(of.input, 5, seed=7)
    wanted = np.asarray(of(inputs))
    rows = [{name: array[row : row + 1] for name, array in inputs.items()} for row in range(5)]
    (signature,) = litert.signatures
    found = np.concatenate([litert.run(signature, row)["output"] for row in rows])
    assert np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted)
    return report


def expected_zeros(update, size):
    """Under a schedule from 0 to 3/4 that acts at updates 2, 4, 6."""
    return zeros_at(polynomial(update, 0.0, 0.75, 2, 6, 3, 2), size)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_student_learns_by_the_names_of_layers_while_it_is_pruned(family):
    teacher, student = model(family, 2), model(family, 1)
    x = batch(student.input, 8)
    losses = [LogitsLoss(), HiddenStateLoss(layers={"transformer_layer_0": "transformer_layer_1"})]
    distiller = Distiller(student, teacher, losses)
    found = distiller.evaluate(x, verbose=0, return_dict=True)
    each = divergence(student.predict(x, verbose=0), teacher.predict(x, verbose=0))
    assert found["logits_loss"] == pytest.approx(each.mean(), rel=1e-4)
    distiller.compile(keras.optimizers.SGD(0.05))
    watch = watcher(expected_zeros, of=student)
    prune = Prune(PolynomialDecay(0.0, 0.75, begin_step=2, end_step=6, frequency=2))
    history = distiller.fit(x, batch_size=8, epochs=8, verbose=0, callbacks=[watch, prune]).history
    assert watch.checked == 8 * KERNELS[family] and not watch.off
    assert history["loss"][1] < history["loss"][0] and history["loss"][-1] < history["loss"][-2]
    with pytest.raises(ValueError, match="There are targets, but no loss for them"):
        distiller.fit(x, np.zeros(8, "int32"), verbose=0)
    with pytest.raises(ValueError, match="no Transformer block of tfxformer"):
        Distiller(student, teacher, [HiddenStateLoss()])


@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_the_whole_road(family, tmp_path):
    teacher, student = model(family, 2), model(family, 1)
    dense = exported(student, tmp_path / "dense.tflite", "float32", 1e-5)

    # Distilled and pruned in one fit: 8 updates, the last mask at update 6.
    x = batch(student.input, 16)
    distiller = Distiller(student, teacher, [LogitsLoss(temperature=2.0)])
    distiller.compile(keras.optimizers.AdamW(0.01))
    prune = Prune(PolynomialDecay(0.0, 0.75, begin_step=2, end_step=6, frequency=2))
    history = distiller.fit(x, batch_size=8, epochs=4, verbose=0, callbacks=[prune]).history
    assert history["logits_loss"][-1] < history["logits_loss"][0]
    pruned = kernels(student)
    assert len(pruned) == KERNELS[family]
    for path, values in pruned.items():
        assert np.sum(values == 0) == values.size * 3 // 4, path

    sparse = exported(student, tmp_path / "sparse.tflite", "float32", 1e-5)
    small = exported(student, tmp_path / "small.tflite", "dynamic_int8", 5e-2)
    assert small.bytes < sparse.bytes == dense.bytes
    assert small.zipped_bytes < sparse.zipped_bytes < 0.7 * dense.zipped_bytes

    # Adapted to labels: the zeros stay where no adapter is merged.
    adapters = Adapters(student)
    adapters.add("films", LoRA(rank=2, targets=("query", "value"), also_train="head"))
    student.compile(keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = student.fit(x, np.arange(16) % 3, batch_size=8, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    adapters.merge()
    exported(student, tmp_path / "adapted.tflite", "dynamic_int8", 5e-2)
    changed = {path for path, values in kernels(student).items() if (values != pruned[path]).any()}
    assert len(changed) == 2 and all(path.split("/")[-2] in ("query", "value") for path in changed)

    # And pruned anew, whatever came before.
    student.trainable = True
    student.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    student.fit(x, np.arange(16) % 3, batch_size=8, verbose=0, callbacks=[Prune(ConstantSparsity(0.5, 0))])
    for path, values in kernels(student).items():
        assert np.sum(values == 0) >= values.size // 2, path
