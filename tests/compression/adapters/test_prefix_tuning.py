"""Prefix tuning: attention beside numpy, and models whose prefix is what a text in front would have left in a cache."""

import json

import keras
import numpy as np
import pytest
import seq2seq_cases
import tiny
from adapter_cases import classifier, language_model, outputs, rows

from tfxformer import export, generation, tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.compression import Adapters, PrefixTuning
from tfxformer.text import Tokenizer

pytestmark = pytest.mark.usefixtures("eager")
LENGTH = 3


def prefixed(model, seed=1):
    """The `Adapters` of a model with a prefix of random values."""
    adapters = Adapters(model)
    adapters.add("films", PrefixTuning(LENGTH))
    generator = np.random.default_rng(seed)
    for part in adapters.layers.values():
        for variable in (part.keys, part.values):
            variable.assign(generator.normal(0, 0.5, variable.shape))
    return adapters


def of_text(model, adapters, ids):
    """Gives a prefix the keys and values that a text leaves in a cache."""
    adapters.activate(None)
    inputs = {"token_ids": np.array([ids], "int32"), "cache_positions": np.arange(len(ids), dtype="int32")}
    _, cache = model.step(inputs, model.new_cache(1, len(ids)), logits=None)
    adapters.activate("films")
    for part, (keys, values) in zip(adapters.layers.values(), cache.self_attention, strict=True):
        part.keys.assign(keys[0])  # [1, G, T, H] -> [G, P, H]
        part.values.assign(np.swapaxes(values[0], 1, 2))  # [1, G, H, T] -> [G, P, H]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_equals_a_text_in_front(family):
    """Keys and values of a text's own tokens: what follows is then as if the text were there."""
    model = language_model(family)
    plain = outputs(model)
    front, ids = [7, 20, 33], [[5, 6, 50, 61], [70, 9, 12, 40]]
    whole = {"token_ids": np.array([front + row for row in ids], "int32"), "padding_mask": np.ones((2, 7), "int32")}
    wanted = np.asarray(model(whole))[:, LENGTH:]
    adapters = prefixed(model)
    of_text(model, adapters, front)
    inputs = {"token_ids": np.array(ids, "int32"), "padding_mask": np.ones((2, 4), "int32")}
    for training in (False, True):
        np.testing.assert_allclose(model(inputs, training=training), wanted, atol=1e-5)
    adapters.activate(None)
    np.testing.assert_array_equal(outputs(model), plain)


def test_fit_trains_it_alone(plain_kernels):
    model = language_model("llama")
    before = tiny.weights(model)
    Adapters(model).add("films", PrefixTuning(LENGTH))
    model.compile(keras.optimizers.Adam(0.01))
    x, _ = rows(model, 8)
    history = model.fit(x, x["token_ids"], batch_size=8, epochs=2, shuffle=False, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    after = tiny.weights(model)
    moved = {path for path, value in after.items() if path not in before or (value != before[path]).any()}
    paths = (f"decoder_block_{index}/self_attention/films" for index in (0, 1))
    assert moved == {f"{path}/prefix_{name}" for path in paths for name in ("keys", "values")}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_generation_on_a_cache(family, plain_kernels):
    """Prompts of two lengths, greedily, beside the argmax of whole sequences; and with drafts."""
    model = language_model(family)
    prefixed(model)
    wanted = []
    for prompt in ([5, 6, 7], [9]):
        ids = list(prompt)
        for _ in range(4):
            batch = {"token_ids": np.array([ids], "int32"), "padding_mask": np.ones((1, len(ids)), "int32")}
            ids.append(int(np.argmax(model(batch)[0, -1])))
        wanted.append(ids[len(prompt) :])
    found = generation.generate(model, [[5, 6, 7], [9]], max_new_tokens=4, jit_compile=False)
    assert [list(row) for row in found] == wanted
    drafted = generation.generate(
        model, [[5, 6, 7]], max_new_tokens=4, jit_compile=False, speculation=generation.PromptLookup()
    )
    assert list(drafted[0]) == wanted[0]
    with pytest.raises(ValueError, match="context is 61"):
        generation.generate(model, [[5] * 60], max_new_tokens=6)


@pytest.mark.parametrize("make", [lambda: language_model("llama"), lambda: classifier(family="gpt2")])
def test_files(make, tmp_path):
    model = make()
    adapters = prefixed(model)
    wanted = outputs(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(again), wanted)
    assert [v.path for v in again.trainable_variables] == [v.path for v in model.trainable_variables]
    plain = Adapters(again)
    plain.activate(None)
    np.testing.assert_array_equal(outputs(again), outputs(make()))
    adapters.save(tmp_path / "films")
    config = json.loads((tmp_path / "films" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["num_virtual_tokens"], config["num_layers"]) == ("PREFIX_TUNING", LENGTH, 2)
    fresh = make()
    Adapters(fresh).load(tmp_path / "films", "again")
    np.testing.assert_array_equal(outputs(fresh), wanted)
    other = language_model("llama", decoder__num_layers=1)
    with pytest.raises(CheckpointError, match="belongs to another base model"):
        Adapters(other).load(tmp_path / "films")


def test_export_of_a_decoder(tiny_tokenizer, tmp_path):
    model = language_model("llama", tokenizer=tiny_tokenizer, decoder__num_layers=1)
    plain = generation.generate(model, [[5, 6, 7]], max_new_tokens=4, jit_compile=False)[0]
    prefixed(model)
    wanted = generation.generate(model, [[5, 6, 7]], max_new_tokens=4, jit_compile=False)[0]
    assert list(wanted) != list(plain)
    path = tmp_path / "model.tflite"
    export.export_litert(model, path, "float32", cache_length=32, prefill_lengths=(4,))
    assert export.LiteRTGenerator(path).generate_ids([5, 6, 7], max_new_tokens=4) == list(wanted)
    with pytest.raises(ValueError, match="the model has 61 positions"):
        export.export_litert(model, path, "float32", cache_length=64)


# ---- behind an encoder ------------------------------------------------------------------------------------------


def pair(family, **arguments):
    """A tiny Seq2SeqLM of two layers each, and a source and what is written on it, of two lengths."""
    model = tiny.perturb(tasks.Seq2SeqLM(tiny.backbone(family, **arguments)))
    generator = np.random.default_rng(3)
    source = {
        "encoder_token_ids": generator.integers(5, 100, (2, 6)).astype("int32"),
        "encoder_padding_mask": np.array([[1] * 6, [1] * 4 + [0] * 2], "int32"),
    }
    return model, source, generator.integers(5, 100, (2, 7)).astype("int32")


def whole(source, ids):
    """A batch of the source and what is written on it."""
    return {**source, "decoder_token_ids": ids, "decoder_padding_mask": np.ones_like(ids)}


@pytest.mark.parametrize("family", ["bart", "marian", "t5"])
def test_a_decoder_behind_an_encoder_equals_a_text_in_front(family):
    """Where the prefix is what tokens leave in the cache of a row, and the rest is written behind them."""
    model, source, ids = pair(family)
    source, ids = {name: array[:1] for name, array in source.items()}, ids[:1]
    wanted = np.asarray(model(whole(source, ids)))
    plain = np.asarray(model(whole(source, ids[:, LENGTH:])))
    step = {"token_ids": ids[:, :LENGTH], "cache_positions": np.arange(LENGTH, dtype="int32")}
    _, cache = model.step(step, model.new_cache(1, LENGTH, source), logits=None)
    adapters = prefixed(model)
    assert list(adapters.layers) == [f"decoder_block_{index}/self_attention" for index in range(len(adapters.layers))]
    for part, (keys, values) in zip(adapters.layers.values(), cache.self_attention, strict=True):
        part.keys.assign(keys[0])
        part.values.assign(np.swapaxes(values[0], 1, 2))
    for training in (False, True):
        found = model(whole(source, ids[:, LENGTH:]), training=training)
        np.testing.assert_allclose(found, wanted[:, LENGTH:], atol=1e-5)
    adapters.activate(None)
    np.testing.assert_array_equal(model(whole(source, ids[:, LENGTH:])), plain)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_what_is_written_behind_a_prefix(family, plain_kernels, tmp_path):
    """Greedily on a cache, beside the argmax of whole sequences; a .keras file keeps it, none of peft's does."""
    model, source, _ = pair(family)
    adapters, ids = prefixed(model), np.full((2, 1), model.decoder_start_token_id, "int32")
    for _ in range(4):
        ids = np.concatenate([ids, np.argmax(np.asarray(model(whole(source, ids)))[:, -1:], -1)], 1).astype("int32")
    found = generation.generate(model, ids[:, :1].tolist(), max_new_tokens=4, source=source, jit_compile=False)
    assert [list(row) for row in found] == ids[:, 1:].tolist()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(whole(source, ids)), model(whole(source, ids)))
    with pytest.raises(CheckpointError, match=r"model\.save\('model\.keras'\)"):
        adapters.save(tmp_path / "films")
    assert not (tmp_path / "films").exists()


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_export_behind_an_encoder(family, tmp_path):
    backbone = tiny.backbone(family, vocabulary_size=290)
    model = tiny.perturb(tasks.Seq2SeqLM(backbone, tokenizer=Tokenizer.train_byte_level_bpe(tiny.TEXTS, 280)))
    sources, targets = tiny.TEXTS[:2], ["a film", "the cat"]
    plain = model.score(sources, targets)
    prefixed(model)
    wanted = model.score(sources, targets)
    assert np.abs(wanted - plain).min() > 1e-3
    export.export_litert(model, tmp_path / "model.tflite", "float32", sequence_length=16, cache_length=8)
    found = export.LiteRTGenerator(tmp_path / "model.tflite").score(sources, targets)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore:.*has no tokenizer files")
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_peft_behind_an_encoder(name, tmp_path):
    """peft's file, and ours in peft: of three layers, and of two, which share one prefix there."""
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    import transformers

    reference, folder = seq2seq_cases.reference(name), tmp_path / "base"
    reference.save_pretrained(folder)
    lm = tasks.Seq2SeqLM.from_pretrained(folder)
    stack, inputs = lm.backbone.config.decoder, seq2seq_cases.batch(lm.backbone.config.padding_id)
    model = peft.get_peft_model(
        reference,
        peft.PrefixTuningConfig(
            task_type="SEQ_2_SEQ_LM",
            num_virtual_tokens=LENGTH,
            num_layers=stack.num_layers,
            num_attention_heads=stack.heads,
            token_dim=stack.heads * stack.head_width,
        ),
    )
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.copy_(
            torch.randn(LENGTH, stack.num_layers * 2 * stack.heads * stack.head_width) * 0.5
        )
    model.save_pretrained(tmp_path / "theirs")

    def logits(model):
        batch = seq2seq_cases.tensors(inputs)
        with torch.inference_mode():
            seen = torch.ones_like(batch["decoder_input_ids"])
            return model.eval()(**batch, decoder_attention_mask=seen).logits.numpy()

    wanted, adapters = logits(model), Adapters(lm)
    adapters.load(tmp_path / "theirs", "films")
    np.testing.assert_allclose(lm(inputs), wanted, atol=1e-5)
    adapters.save(tmp_path / "ours")
    base = getattr(transformers, seq2seq_cases.CASES[name][1]).from_pretrained(folder)
    opened = peft.PeftModel.from_pretrained(base, tmp_path / "ours")
    np.testing.assert_allclose(logits(opened), wanted, atol=1e-6)


def test_what_cannot_be():
    adapters = prefixed(language_model("gpt2"))
    with pytest.raises(ValueError, match="no kernel can hold it"):
        adapters.merge()
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="length counts keys and values"):
            PrefixTuning(wrong)
    for model in (classifier(), language_model("bloom"), language_model("mistral", decoder__attention__window=4)):
        with pytest.raises(ValueError, match=r"wanted a decoder of tfxformer.*no ALiBi and no sliding window"):
            Adapters(model).add("films", PrefixTuning())
    with pytest.raises(ValueError, match="length=64 leaves 0 of the model's positions"):
        Adapters(tasks.CausalLM(tiny.backbone("gpt2"))).add("films", PrefixTuning(64))
