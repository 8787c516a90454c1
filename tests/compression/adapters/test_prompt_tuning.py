"""Prompt tuning: a model with a prompt, beside one whose vocabulary has the prompt's rows as tokens."""

import json

import keras
import numpy as np
import pytest
import tiny
from adapter_cases import classifier, language_model, outputs, rows

from tfxformer import export, generation, tasks
from tfxformer.compression import Adapters, PromptTuning

pytestmark = pytest.mark.usefixtures("eager")
LENGTH = 3


def tagger():
    return tiny.perturb(tasks.TokenClassifier(tiny.backbone("bert"), ["a", "b", "c"]))


def prompted(model, seed=1, **arguments):
    """The `Adapters` of a model with a prompt of random values."""
    adapters = Adapters(model)
    adapters.add("films", PromptTuning(LENGTH, **arguments))
    prompt = table(model).adapter.embeddings
    prompt.assign(np.random.default_rng(seed).normal(0, 0.3, prompt.shape))
    return adapters


def table(model):
    return getattr(model, "backbone", model).token_embedding


def with_tokens(model, make):
    """The same weights without adapter, the prompt's rows being the last tokens of the vocabulary."""
    size = tiny.VOCABULARY_SIZE
    other = make(vocabulary_size=size + LENGTH)
    values = tiny.weights(model)
    for variable in other.variables:
        if variable.path == "token_embedding/embeddings":
            variable.assign(np.concatenate([values[variable.path], values["token_embedding/films/prompt"]]))
        elif variable.path in values:
            variable.assign(values[variable.path])
    return other


def longer(inputs):
    """A batch with those tokens in front."""
    front = {"token_ids": tiny.VOCABULARY_SIZE + np.arange(LENGTH), "padding_mask": np.ones(LENGTH)}
    return {
        name: np.concatenate([np.tile(front.get(name, np.zeros(LENGTH)), (len(x), 1)), x], axis=1).astype("int32")
        for name, x in inputs.items()
    }


ENCODER, DECODER = {"encoder__num_layers": 1}, {"decoder__num_layers": 1}
CASES = {
    "encoder": lambda **changes: tiny.backbone("bert", **ENCODER, **changes),
    "classifier": lambda **changes: classifier(**ENCODER, **changes),
    "gpt2": lambda **changes: language_model("gpt2", **DECODER, **changes),
    "llama": lambda **changes: language_model("llama", **DECODER, **changes),
    "bloom": lambda **changes: language_model("bloom", **DECODER, **changes),  # ALiBi
}


@pytest.mark.parametrize("name", list(CASES))
def test_equals_tokens_of_the_same_embeddings(name):
    model = CASES[name]()
    plain = outputs(model)
    adapters = prompted(model)
    inputs = tiny.inputs_for(model)
    wanted = with_tokens(model, CASES[name])(longer(inputs))
    both = [model(inputs, training=training) for training in (False, True)]
    if name == "encoder":
        for found in both:
            np.testing.assert_allclose(found["pooled_output"], wanted["pooled_output"], atol=1e-5)
        both, wanted = [found["sequence_output"] for found in both], wanted["sequence_output"]
    wanted = np.asarray(wanted)
    if wanted.ndim == 3:  # per token; of a language model without the logits of the new tokens
        wanted = wanted[:, LENGTH:, : tiny.VOCABULARY_SIZE]
    valid = inputs["padding_mask"].astype(bool) if wanted.ndim == 3 else slice(None)
    for found in both:
        assert found.shape == wanted.shape
        np.testing.assert_allclose(np.asarray(found)[valid], wanted[valid], atol=1e-5)
    adapters.activate(None)
    np.testing.assert_array_equal(outputs(model), plain)


def test_documents_of_a_packed_row_all_see_it():
    model = language_model("gpt2", **DECODER)
    prompted(model)
    ids = np.arange(5, 13, dtype="int32")
    packed = model({"token_ids": ids[None], "padding_mask": np.array([[1, 1, 1, 2, 2, 2, 2, 2]], "int32")})
    for part in (slice(0, 3), slice(3, 8)):
        alone = {"token_ids": ids[None, part], "padding_mask": np.ones_like(ids[None, part])}
        np.testing.assert_allclose(packed[:, part], model(alone), atol=1e-5)


@pytest.mark.parametrize("make", [classifier, tagger])
def test_fit_trains_it_and_the_head_alone(make, plain_kernels):
    model = make()
    before = tiny.weights(model)
    Adapters(model).add("films", PromptTuning(LENGTH))
    start = np.asarray(table(model).adapter.embeddings)
    assert {tuple(row) for row in start} <= {tuple(row) for row in before["token_embedding/embeddings"]}
    model.compile(keras.optimizers.Adam(0.01))
    x, y = rows(model, 8)
    y = y if make is classifier else x["token_ids"] % 3
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    after = tiny.weights(model)
    moved = {path for path, value in after.items() if path not in before or (value != before[path]).any()}
    head = "classifier/output" if make is classifier else "token_classifier/output"
    assert moved == {"token_embedding/films/prompt", f"{head}/kernel", f"{head}/bias"}
    assert (after["token_embedding/films/prompt"] != start).all()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_generation_on_a_cache(family, tiny_tokenizer, plain_kernels):
    """Prompts of two lengths, greedily, beside the argmax of whole sequences; and texts."""
    model = language_model(family, tokenizer=tiny_tokenizer, **DECODER)
    plain = generation.generate(model, [[5, 6, 7]], max_new_tokens=3, jit_compile=False)
    prompted(model)
    wanted = []
    for prompt in ([5, 6, 7], [9]):
        ids = list(prompt)
        for _ in range(3):
            batch = {"token_ids": np.array([ids], "int32"), "padding_mask": np.ones((1, len(ids)), "int32")}
            ids.append(int(np.argmax(model(batch)[0, -1])))
        wanted.append(ids[len(prompt) :])
    processors = [generation.RepetitionPenalty(1.0)]
    found = generation.generate(model, [[5, 6, 7], [9]], max_new_tokens=3, jit_compile=False, processors=processors)
    assert [list(row) for row in found] == wanted != [list(row) for row in plain]
    assert isinstance(model.generate(["good film"], max_new_tokens=3, jit_compile=False)[0], str)
    assert np.isfinite(model.score(["good film"])).all()
    with pytest.raises(ValueError, match="generate without speculation"):
        generation.generate(model, [[5, 6, 7]], max_new_tokens=3, speculation=generation.PromptLookup())


# ---- files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder", "classifier", "llama"])
def test_files(name, tmp_path):
    model = CASES[name]()
    adapters = prompted(model)
    wanted = outputs(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(again), wanted)
    assert [v.path for v in again.trainable_variables] == [v.path for v in model.trainable_variables]
    assert Adapters(again).active == "films"
    adapters.save(tmp_path / "films")
    config = json.loads((tmp_path / "films" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["num_virtual_tokens"]) == ("PROMPT_TUNING", LENGTH)
    fresh = CASES[name]()
    Adapters(fresh).load(tmp_path / "films", "again")
    np.testing.assert_array_equal(outputs(fresh), wanted)


@pytest.mark.parametrize("quantization", ["float32", pytest.param("dynamic_int8", marks=pytest.mark.slow)])
def test_export_of_a_classifier(quantization, tiny_tokenizer, tmp_path):
    model = classifier(tiny_tokenizer, **ENCODER)
    plain = model.predict(tiny.TEXTS[:3], verbose=0)
    prompted(model)
    wanted = model.predict(tiny.TEXTS[:3], verbose=0)
    assert np.abs(wanted - plain).max() > 0.01
    export.export_litert(model, tmp_path / "model.tflite", quantization, sequence_length=16)
    found = export.LiteRTModel(tmp_path / "model.tflite").predict(tiny.TEXTS[:3])
    np.testing.assert_allclose(found, wanted, atol=1e-5 if quantization == "float32" else 0.03)


def test_what_cannot_be(tmp_path):
    model = language_model("gpt2", **DECODER)
    adapters = prompted(model)
    with pytest.raises(ValueError, match=r"beside its layers \(token_embedding, ...\): no kernel can hold it"):
        adapters.merge()
    with pytest.raises(ValueError, match="no such file is written"):
        export.export_litert(model, tmp_path / "model.tflite", "float32")
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="length counts embeddings"):
            PromptTuning(wrong)
    with pytest.raises(ValueError, match="is a MaskedLM; wanted"):
        Adapters(tasks.MaskedLM(tiny.backbone("bert", **ENCODER))).add("films", PromptTuning())
    with pytest.raises(ValueError, match="length=64 leaves 0 of the model's positions"):
        Adapters(classifier(**ENCODER)).add("films", PromptTuning(64))
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="is a Sequential; wanted an encoder or decoder of tfxformer"):
        Adapters(plain).add("films", PromptTuning())
