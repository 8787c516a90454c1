"""One thing after another: what an earlier step has made, a later one keeps or refuses; layers count from 0."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tiny

from tfxformer import compression, export, registered, tasks, training

pytestmark = pytest.mark.usefixtures("plain_kernels")
HALF = compression.ConstantSparsity(0.5, begin_step=0)


def classifier(tokenizer=None, family="bert", seed=1, **changes):
    """A classifier of one layer, every weight random."""
    changes = {"encoder__num_layers": 1, **changes}
    model = tasks.TextClassifier(tiny.backbone(family, **changes), ["negative", "positive"], tokenizer=tokenizer)
    model.sequence_length = 16
    return tiny.perturb(model, seed)


def fit(model, *callbacks, rate=0.05, **options):
    model.compile(keras.optimizers.SGD(rate))
    return model.fit(tiny.TEXTS[:12], tiny.LABELS[:12], batch_size=6, verbose=0, callbacks=list(callbacks), **options)


def zeros(model):
    """{path: which weights are exactly zero} of the kernels that `Prune` prunes by default."""
    return {row.path: np.asarray(weight) == 0 for row, weight in rows(model)}


def rows(model):
    by_path = {weight.path: weight for weight in model.weights}
    return [(row, by_path[row.path]) for row in compression.sparsity_report(model).rows]


def distinct(model):
    return max(len(np.unique(np.asarray(weight))) for _, weight in rows(model))


# ---- zeros and clusters -----------------------------------------------------------------------------------------


def test_prune_fit_then_quantization_aware_fit(tiny_tokenizer, eager):
    """Row 1. The right value is by definition: half of every kernel, the very same places, and the others trained."""
    model = classifier(tiny_tokenizer)
    fit(model, compression.Prune(HALF, m_by_n=(2, 4)))
    before, weights = zeros(model), tiny.weights(model)
    assert compression.sparsity_report(model).kernels.sparsity == 0.5
    fit(model, compression.QuantizationAware(tiny.TEXTS[:6]), epochs=2)
    for path, there in zeros(model).items():
        np.testing.assert_array_equal(there, before[path])
        assert np.any(tiny.weights(model)[path] != weights[path])
    assert all(weight.constraint is None for weight in model.weights)  # and nothing is left
    fit(model)  # a plain fit trains them again: what Prune's documentation says
    assert compression.sparsity_report(model).kernels.sparsity < 0.1


@pytest.mark.parametrize("pruned", [False, True])
def test_cluster_fit_then_quantization_aware_fit(tiny_tokenizer, pruned, eager):
    """Kernels as `Cluster` leaves them, made by numpy: 7 values, and where `Prune` was before it zeros in any place."""
    model = classifier(tiny_tokenizer)
    for _, kernel in rows(model):
        values = np.clip(np.round(np.asarray(kernel) * 10 + 0.5), -3, 4) / 10 - 0.05  # no zero among them
        there = np.random.default_rng(0).random(values.shape) < 0.5
        kernel.assign(np.where(there & pruned, 0.0, values))
    before, weights = zeros(model), tiny.weights(model)
    fit(model, compression.QuantizationAware(tiny.TEXTS[:6]))
    assert distinct(model) <= 9
    for path, there in zeros(model).items():
        np.testing.assert_array_equal(there, before[path])
        assert np.any(tiny.weights(model)[path] != weights[path])


def test_quantization_aware_beside_the_callbacks_that_prune(tiny_tokenizer, eager):
    """In whichever order: `Prune` holds its own kernels, and of the one that it was not given the zeros stay."""
    model = classifier(tiny_tokenizer)
    head = model.heads["classifier"].output_projection.kernel
    head.assign(np.where(np.arange(64).reshape(32, 2) % 3, np.asarray(head), 0.0))
    fit(model, compression.QuantizationAware(tiny.TEXTS[:6]), compression.Prune(HALF))
    assert compression.sparsity_report(model).kernels.sparsity == 0.5
    assert (np.asarray(head) == 0).sum() == 22
    assert "make_train_function" not in vars(model) and "call" not in vars(model)


def test_shared_values_move_by_the_mean_of_their_updates(tiny_tokenizer):
    """One step of gradient descent on values that members share is that of their mean gradient (numpy)."""
    from tfxformer.compression.pruning.kept_forms import KeptForms

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(40, use_bias=False)])
    kernel = model.layers[0].kernel
    values = np.random.default_rng(0).choice([0.0, -0.5, 0.25], (6, 40)).astype("float32")
    kernel.assign(values)
    x, y = np.eye(6, dtype="float32"), np.random.default_rng(1).normal(size=(6, 40)).astype("float32")
    gradient = 2 * (values - y) / y.size  # of the mean squared error
    wanted = np.zeros_like(values)
    for value in (-0.5, 0.25):
        wanted[values == value] = value - gradient[values == value].mean()
    model = keras.Model(model.inputs, model.outputs)
    model.compile(keras.optimizers.SGD(1.0), "mse")

    class Kept(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.kept = KeptForms(self.model)

        def on_train_end(self, logs=None):
            self.kept.release()

    model.fit(x, y, batch_size=6, verbose=0, callbacks=[Kept()])
    np.testing.assert_allclose(np.asarray(kernel), wanted, atol=1e-6)


# ---- numbers of layers ------------------------------------------------------------------------------------------


def test_student_from_and_remove_layers_count_alike(tiny_tokenizer):
    """Row 3. Layers are numbered from 0, as in `encoder_block_0` and in transformers' `encoder.layer.0`."""
    teacher = classifier(tiny_tokenizer, encoder__num_layers=4)
    student = compression.student_from(teacher, keep=(2, 3))
    removed = compression.remove_layers(teacher, keep=(2, 3))
    there, batch = tiny.weights(teacher), tiny.inputs_for(teacher)
    for path, value in tiny.weights(student).items():
        there_path = path.replace("block_1/", "block_3/").replace("block_0/", "block_2/")
        np.testing.assert_array_equal(value, there[there_path])
    np.testing.assert_array_equal(student(batch), removed(batch))
    for function in (compression.student_from, compression.remove_layers):
        for wrong in ((1, 4), (-1, 2), (2, 1), ()):
            with pytest.raises(ValueError, match="layers of 0 to 3 in ascending order"):
                function(teacher, keep=wrong)
        for wrong in ("12", [1.5], [True]):
            with pytest.raises(TypeError, match="numbers of layers, such as"):
                function(teacher, keep=wrong)


def test_student_from_of_a_model_with_adapters_says_what_to_do(tiny_tokenizer):
    teacher = classifier(tiny_tokenizer)
    compression.Adapters(teacher).add("reviews", compression.LoRA(rank=2))
    for make in (lambda: compression.student_from(teacher, 1), lambda: compression.remove_heads(teacher, 2)):
        with pytest.raises(ValueError, match=r"has adapters.*merge\(\) or remove\(\)"):
            make()


# ---- adapters and files -----------------------------------------------------------------------------------------


def test_an_active_lora_of_any_rank_exports_as_when_merged(tmp_path):
    """Row 4. Rank 64 of kernels 32 wide: the same bytes, and the adapter is beside its kernels as before."""
    model = classifier()
    adapters = compression.Adapters(model)
    adapters.add("reviews", compression.LoRA(rank=64))
    before = tiny.weights(tiny.perturb(model, 3))
    export.export_litert(model, tmp_path / "active.tflite", "float32", sequence_length=16)
    after = tiny.weights(model)
    assert before.keys() == after.keys()
    assert all(np.array_equal(value, after[path]) for path, value in before.items())
    adapters.merge()
    export.export_litert(model, tmp_path / "merged.tflite", "float32", sequence_length=16)
    assert (tmp_path / "active.tflite").read_bytes() == (tmp_path / "merged.tflite").read_bytes()


def test_keras_own_lora_exports_too(tmp_path):
    layer, inputs = keras.layers.Dense(32), keras.Input((16,))
    model = keras.Model(inputs, keras.layers.Dense(3)(layer(inputs)))
    layer.enable_lora(64)
    wanted = tiny.perturb(model, 3)(np.ones((1, 16), "float32"))
    assert export.export_litert(model, tmp_path / "m.tflite", "float32").error < 1e-5
    assert layer.lora_enabled
    np.testing.assert_array_equal(model(np.ones((1, 16), "float32")), wanted)


def test_a_model_around_an_encoder_exports_as_the_task(tmp_path):
    """Row 5. Three ways to write the very task as a `keras.Model` of one's own: the int8 error of the task's file."""
    task = tiny.perturb(tasks.TokenClassifier(tiny.backbone(encoder__num_layers=1), ["a", "b", "c"]))
    encoder, head, batch = task.backbone, task.heads["classifier"], tiny.batch(3, 16, seed=1)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in encoder.input}
    models = {
        "task": task,
        "called": keras.Model(inputs, head(encoder(inputs)["sequence_output"])),
        "continued": keras.Model(encoder.input, head(encoder.output["sequence_output"])),
        "task called": keras.Model(inputs, task(inputs)),
    }
    full = {name: array[:1] for name, array in batch.items()}  # its first row has no padding, which a task leaves out
    reports = {
        name: export.export_litert(
            model, tmp_path / f"{name}.tflite", "int8", sequence_length=16, representative=batch, samples=full
        )
        for name, model in models.items()
    }
    errors = {name: report.error for name, report in reports.items()}
    assert errors == pytest.approx(dict.fromkeys(errors, errors["task"]), rel=1e-3)


def test_a_model_that_continues_an_encoders_graph_is_saved_and_loaded(tmp_path):
    encoder = tiny.backbone(encoder__num_layers=1)
    model = keras.Model(encoder.input, keras.layers.Dense(3)(encoder.output["pooled_output"]))
    batch = tiny.inputs_for(encoder)
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(batch), model(batch))


# ---- Keras' own files -------------------------------------------------------------------------------------------


@pytest.mark.road
def test_load_model_after_importing_tfxformer_alone(tmp_path):
    """Row 6, in a fresh process: a task, a model around a backbone, and a plain one with an optimizer of ours."""
    task = classifier()
    task.compile()
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in task.backbone.input}
    around = keras.Model(inputs, keras.layers.Dense(3)(task.backbone(inputs)["sequence_output"]))
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    plain.compile(training.AdamW(training.WarmupLinear(1e-3, 100, 10)), "mse", metrics=[training.Perplexity()])
    models, batch = {"task": task, "around": around, "plain": plain}, tiny.inputs_for(task)
    wanted = {}
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
        wanted[name] = float(np.abs(np.asarray(model(batch if name != "plain" else np.ones((1, 4))))).sum())
    np.savez(tmp_path / "batch.npz", **batch)
    code = f"""
import json, keras, tfxformer
import numpy as np
found, batch = {{}}, dict(np.load({str(tmp_path / "batch.npz")!r}))
for name in ("plain", "around", "task"):
    model = keras.models.load_model({str(tmp_path)!r} + f"/{{name}}.keras")
    found[name] = float(np.abs(np.asarray(model(batch if name != "plain" else np.ones((1, 4))))).sum())
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("path", "format"), [("m.tflite", "litert"), ("m", "litert"), ("m.tflite", "tf_saved_model")])
def test_keras_own_export_to_litert_names_ours(path, format, tmp_path):
    """Of the kind of `save("x.h5")`: a task, a backbone, and any model whose class is ours."""
    inputs = keras.Input((4,))
    for model in (classifier(), tiny.backbone(encoder__num_layers=1), training.DistributedModel(inputs, inputs * 2)):
        with pytest.raises(ValueError, match=r"write LiteRT files by tfxformer\.export\.export_litert"):
            model.export(tmp_path / path, format=format)
    assert not list(tmp_path.iterdir())


def test_keras_is_told_every_name_that_is_registered():
    registered.announce()
    ours = {name.partition(">")[2] for name in keras.saving.get_custom_objects() if name.startswith("tfxformer>")}
    assert ours == {*registered.CLASSES, *registered.RENAMED, *registered.FUNCTIONS}


# ---- tasks and backbones ----------------------------------------------------------------------------------------


def test_a_causal_lm_on_an_encoders_folder_is_refused(tmp_path):
    """Row 7. By definition: a token that sees the next one has nothing to predict."""
    folder = classifier().save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match=r"CausalLM .* needs a decoder .* take MaskedLM, or a decoder's checkpoint\.$"):
        tasks.CausalLM.from_pretrained(folder)
    with pytest.raises(ValueError, match="needs a decoder"):
        tasks.CausalLM(tiny.backbone())


@pytest.mark.parametrize("task", ["MaskedLM", "BertPretraining", "PermutationLM", "ReplacedTokenDetection"])
def test_what_fills_in_tokens_is_refused_on_decoders(task, tmp_path):
    decoder = tiny.backbone("gpt2", decoder__num_layers=1)
    with pytest.raises(ValueError, match=f"{task} fills in .* needs an encoder .* take CausalLM"):
        getattr(tasks, task)(decoder)
    folder = tasks.CausalLM(decoder).save_pretrained(tmp_path / "decoder")
    with pytest.raises(ValueError, match="needs an encoder"):
        getattr(tasks, task).from_pretrained(folder)


@pytest.mark.parametrize("task", ["TextClassifier", "TokenClassifier", "QuestionAnswering", "TextEmbedder", "MaskedLM"])
def test_a_task_on_what_is_no_backbone_is_refused(task):
    labels = (["a", "b"],) if task.endswith("Classifier") else ()
    for wrong, named in (
        (keras.Sequential([keras.Input((3,))]), "a Sequential"),
        ("bert-base", "the text 'bert-base'"),
    ):
        with pytest.raises(TypeError, match=f"stands on an Encoder or Decoder of tfxformer, got {named}"):
            getattr(tasks, task)(wrong, *labels)


def test_an_export_names_what_it_was_not_given(tiny_tokenizer, tmp_path):
    task, path = classifier(tiny_tokenizer), tmp_path / "m.tflite"
    with pytest.raises(TypeError, match=r"must be a task or a Keras model, got str: open a file by keras\.models"):
        export.export_litert("m.keras", path)
    with pytest.raises(ValueError, match=r"at most 64 tokens; got \[65\]"):
        export.export_litert(task, path, sequence_length=65)
    with pytest.raises(TypeError, match=r"representative must be a list of texts, got one str: pass \[text\]"):
        export.export_litert(task, path, "int8", representative="good film")
    assert not list(tmp_path.glob("*.tflite"))


def test_an_embedder_of_a_causal_decoders_first_token_is_refused():
    decoder = tiny.backbone("gpt2", decoder__num_layers=1)
    with pytest.raises(ValueError, match="has seen nothing of the text"):
        tasks.TextEmbedder(decoder, pooling="cls")


def test_a_distiller_of_two_vocabularies_names_the_order(tiny_tokenizer):
    """Row 2. Trimmed first, teacher and student read alike; trimmed after, the message says so."""
    teacher = classifier(tiny_tokenizer)
    small = compression.remove_heads(compression.trim_vocabulary(teacher, tiny.TEXTS), keep=2)
    with pytest.raises(ValueError, match=r"trim first: teacher = compression\.trim_vocabulary"):
        compression.Distiller(small, teacher)
    teacher = compression.trim_vocabulary(teacher, tiny.TEXTS)
    compression.Distiller(compression.remove_heads(teacher, keep=2), teacher)


def test_a_distiller_of_logits_wants_two_of_one_task():
    """A tagger of two labels and a reader of spans both give [B, S, 2], which mean other things."""
    tagger = tasks.TokenClassifier(tiny.backbone(), ["a", "b"])
    reader = tasks.QuestionAnswering(tiny.backbone(seed=2))
    with pytest.raises(ValueError, match="other task_name"):
        compression.Distiller(tagger, reader)
