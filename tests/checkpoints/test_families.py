"""Every family against transformers: stored results in the plain tests, live ones in the reference tests."""

import json
import shutil
import warnings
from pathlib import Path

import make_fixtures
import numpy as np
import pytest
import tiny

import tfxformer
from tfxformer import checkpoints, samples, tasks
from tfxformer.layers.attention.rotary import Rotary

TOLERANCE = 1e-5  # of logits and hidden states of a few units; the contract is 1e-4
TASKS = {
    "text-classification": tasks.TextClassifier,
    "token-classification": tasks.TokenClassifier,
    "question-answering": tasks.QuestionAnswering,
    "masked-lm": tasks.MaskedLM,
    "pretraining": tasks.MaskedLM,
    "causal-lm": tasks.CausalLM,
}
DECODERS = [name for name, case in make_fixtures.CASES.items() if make_fixtures.is_decoder(case)]
IN_TRANSFORMERS = [name for name, case in make_fixtures.CASES.items() if case.files != "published"]
STORED = [name for name, case in make_fixtures.CASES.items() if case.stored]
HEADLESS = "electra-discriminator"  # a head that we have no task for


def open_case(name, folder, tokenizer):
    """The task that reads a case's head, or the bare backbone; without any warning where all is used."""
    head = make_fixtures.CASES[name].head
    if head is None or name == HEADLESS:
        return tfxformer.from_pretrained(folder)
    return TASKS[head].from_pretrained(folder, tokenizer=tokenizer)


def check_results(name, model, inputs, *several):
    """Hidden states, pooled output and logits on valid positions, beside each of `several`; the largest error."""
    backbone = getattr(model, "backbone", model)
    outputs = backbone.forward({key: np.asarray(value) for key, value in inputs.items()})
    logits = None if model is backbone else np.asarray(model(inputs))
    return max(error_of(outputs, logits, inputs, results) for results in several)


def error_of(outputs, logits, inputs, results):
    """The largest error of what a model has computed, within the tolerance."""
    valid = inputs["padding_mask"].astype(bool)
    hidden = np.stack([np.asarray(state) for state in outputs["hidden_states"]])
    wanted = results["hidden_states"]
    if "sequence_output" in results:  # the last state of a decoder is normed in the reference
        hidden = hidden[:-1]
    assert hidden.shape == wanted.shape
    errors = [np.abs(hidden - wanted)[:, valid].max()]
    if "sequence_output" in results:
        wanted = results["sequence_output"]
        errors.append(np.abs(np.asarray(outputs["sequence_output"]) - wanted)[valid].max())
    if "pooled_output" in results and "pooled_output" in outputs:
        errors.append(np.abs(np.asarray(outputs["pooled_output"]) - results["pooled_output"]).max())
    if logits is not None:
        wanted = results["logits"]
        assert logits.shape == wanted.shape
        errors.append(np.abs((logits - wanted)[valid] if logits.ndim == 3 else logits - wanted).max())
    scale = max(1.0, np.abs(wanted).max())
    assert max(errors) <= min(1e-4, TOLERANCE * scale), errors
    return max(errors)


def read_stored(name):
    stored = dict(np.load(make_fixtures.FOLDER / name / "expected.npz"))
    inputs = {key.removeprefix("input_"): stored.pop(key) for key in list(stored) if key.startswith("input_")}
    return make_fixtures.FOLDER / name, inputs, stored


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """Cases made by transformers in this run, each once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = make_fixtures.make(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture(scope="module")
def stored(tiny_tokenizer):
    """(folder, inputs, transformers' results, what opens there) of a stored case, read once."""
    made = {}

    def get(name):
        if name not in made:
            folder, inputs, results = read_stored(name)
            made[name] = folder, inputs, results, open_case(name, folder, tiny_tokenizer)
        return made[name]

    return get


@pytest.mark.filterwarnings("ignore:Heads")
@pytest.mark.parametrize("name", STORED)
def test_equals_stored_results(name, stored):
    folder, inputs, results, model = stored(name)
    check_results(name, model, inputs, results)
    family = json.loads((folder / "config.json").read_text())["model_type"]
    assert getattr(model, "backbone", model).config.family == family == make_fixtures.CASES[name].family


def read_tensors(folder):
    """All tensors of a folder by the safetensors library where it is there, else by our own reader."""
    try:
        from safetensors.numpy import load_file
    except ImportError:
        return {name: np.array(array) for name, array in checkpoints.files.safetensors.open_folder(folder).items()}
    return {name: array for path in sorted(folder.glob("*.safetensors")) for name, array in load_file(path).items()}


def save(model, folder, **arguments):
    if hasattr(model, "backbone"):
        return model.save_pretrained(folder, **arguments)
    return checkpoints.save_pretrained(
        folder, model, model.config, reference_config=model.reference_config, **arguments
    )


@pytest.mark.filterwarnings("ignore:Heads")
@pytest.mark.parametrize("name", [name for name in STORED if not make_fixtures.CASES[name].files])
def test_round_trip_is_bit_exact(name, stored, tmp_path):
    folder, _, _, model = stored(name)
    saved = save(model, tmp_path / "saved")
    before, after = read_tensors(folder), read_tensors(saved)
    if name == HEADLESS:  # the bare encoder is saved without its prefix and without the unread head
        before = {key.removeprefix("electra."): value for key, value in before.items() if key.startswith("electra.")}
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert after[key].dtype == value.dtype
        np.testing.assert_array_equal(after[key], value, err_msg=key)
    config, written = (json.loads((path / "config.json").read_text()) for path in (folder, saved))
    kept = {key: written.get(key, "absent") for key in config if key not in ("architectures", "classifier_dropout")}
    changed = {key: (config[key], value) for key, value in kept.items() if config[key] != value}
    assert not changed
    if name != HEADLESS:
        assert written["architectures"] == config["architectures"]


def reopen(case, folder):
    """The folder in transformers, which reports no key missing, unexpected or misshaped."""
    import transformers

    head = "masked-lm" if case.head == "pretraining" else case.head
    architecture = make_fixtures.architecture(case.family, head)
    if case == make_fixtures.CASES[HEADLESS]:
        architecture = "ElectraModel"
    # The pooler is not saved where there is none, and transformers makes one for a bare model.
    bare = (
        {}
        if case.head
        or case.family in ("distilbert", "electra", *make_fixtures.encoder_cases.NO_POOLER, *make_fixtures.DECODERS)
        else {"add_pooling_layer": case.files != "no-pooler"}
    )
    model, loading = getattr(transformers, architecture).from_pretrained(
        folder, output_loading_info=True, attn_implementation=case.attention, **bare
    )
    assert not loading["missing_keys"], loading
    assert not loading["unexpected_keys"], loading
    assert not loading["mismatched_keys"], loading
    assert model.config.architectures == [architecture]
    return model.eval()


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore:Heads")
@pytest.mark.parametrize(
    "name",
    [
        name if make_fixtures.is_first(name) else pytest.param(name, marks=pytest.mark.slow)
        for name in make_fixtures.CASES
    ],
)
def test_equals_transformers_in_both_directions(name, live, tiny_tokenizer, tmp_path):
    """What its folder says, and what ours says to it."""
    folder, inputs, results = live(name)
    case = make_fixtures.CASES[name]
    model = open_case(name, folder, tiny_tokenizer)
    saved = save(model, tmp_path / "saved")
    if make_fixtures.is_decoder(case):
        check_same_bits(case, folder, saved)
    reopened = [make_fixtures.run(reopen(case, saved), inputs)] if name in IN_TRANSFORMERS else []
    check_results(name, model, inputs, results, *reopened)


def check_same_bits(case, folder, saved):
    """Every tensor of a decoder's folder came back, but for buffers, and the copy of a tied table."""
    prefix = checkpoints.families.family_of(case.family).prefix
    before, after = (
        {
            name.removeprefix(prefix): np.array(array)
            for name, array in checkpoints.files.safetensors.open_folder(path).items()
        }
        for path in (folder, saved)
    )
    dropped = {name for name in before if name not in after}
    assert after.keys() <= before.keys()
    assert all("inv_freq" in name or "attn" in name or "attention" in name for name in dropped - {"lm_head.weight"})
    assert ("lm_head.weight" in dropped) == (case.files == "copy")
    assert len([name for name in dropped if name != "lm_head.weight"]) <= (3 if case.files == "old" else 0)
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name].astype("float32"), err_msg=name)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["bert-silu-one-type", "roberta-masked-lm", "albert-tagger", "electra-answers"])
def test_opens_in_transformers_after_fit(name, live, tiny_tokenizer, tmp_path, plain_kernels, eager):
    folder, inputs, _ = live(name)
    case = make_fixtures.CASES[name]
    model = open_case(name, folder, tiny_tokenizer)
    before = tiny.weights(model)
    targets = {
        "text-classification": np.array([0, 1, 1]),
        "question-answering": np.array([[1, 2], [3, 3], [0, 0]]),
    }.get(case.head, inputs["token_ids"] % 2)
    model.compile(learning_rate=1e-2, warmup=0.0)
    model.fit(inputs, targets, epochs=2, verbose=0)
    after = tiny.weights(model)
    assert all((before[path] != after[path]).any() for path in before if "query/kernel" in path)
    saved = save(model, tmp_path / "saved")
    check_results(name, model, inputs, make_fixtures.run(reopen(case, saved), inputs))


@pytest.mark.reference
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_folder_opens_in_transformers(dtype, live, tiny_tokenizer, tmp_path):
    import torch

    folder, inputs, _ = live("bert-quick-gelu")
    model = open_case("bert-quick-gelu", folder, tiny_tokenizer)
    saved = save(model, tmp_path / "saved", dtype=dtype, max_shard_bytes=9000)
    assert len(list(saved.glob("*.safetensors"))) > 2
    opened = reopen(make_fixtures.CASES["bert-quick-gelu"], saved)
    assert {p.dtype for p in opened.parameters()} == {getattr(torch, dtype)}
    rounded = open_case("bert-quick-gelu", saved, tiny_tokenizer)
    check_results("bert-quick-gelu", rounded, inputs, make_fixtures.run(opened.float(), inputs))


@pytest.mark.parametrize("name", ["bert-legacy-pretraining", "bert-shards"])
def test_odd_files_are_read_to_the_last_bit(name, tiny_tokenizer):
    """Old names and bf16 shards: every variable holds what the file holds."""
    folder, _, _ = read_stored(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = open_case(name, folder, tiny_tokenizer)
    tensors = checkpoints.files.safetensors.open_folder(folder)
    encoder = model.backbone
    table = np.asarray(encoder.token_embedding.embeddings.value)
    np.testing.assert_array_equal(table, tensors["bert.embeddings.word_embeddings.weight"].astype("float32"))
    query = tensors["bert.encoder.layer.1.attention.self.query.weight"].astype("float32")
    loaded = tiny.weights(model)["encoder_block_1/self_attention/query/kernel"]
    np.testing.assert_array_equal(loaded, query.T)


@pytest.mark.parametrize("family", list(make_fixtures.CLASSES))
def test_built_model_is_saved_and_read_again(family, tmp_path):
    """A model that came from no file, with an activation (where the family has a choice) and depth of its own."""
    stack = "decoder" if family in make_fixtures.DECODERS else "encoder"
    changes = {} if family in ("bloom", "lfm2", "qwen3_5_text") else {f"{stack}__feed_forward__activation": "relu"}
    model = tiny.backbone(family, **changes, **{f"{stack}__stochastic_depth": 0.2})
    saved = save(model, tmp_path / "saved")
    again = tfxformer.from_pretrained(saved)
    assert again.config.replace(**{f"{stack}__stochastic_depth": 0.2}) == model.config
    read, written = tiny.weights(again), tiny.weights(model)
    assert read.keys() == written.keys()
    for path, values in written.items():
        np.testing.assert_array_equal(read[path], values, err_msg=path)


@pytest.mark.reference
@pytest.mark.parametrize("family", ["bert", "albert", "electra"])
def test_built_task_opens_in_transformers(family, tmp_path):
    """A pooler that the head does not read is not saved: the reference's class has no place for it."""
    model = tiny.perturb(tasks.MaskedLM(tiny.backbone(family, encoder__feed_forward__activation="silu")))
    opened = reopen(make_fixtures.Case(family, "masked-lm"), model.save_pretrained(tmp_path / "saved"))
    inputs = tiny.inputs_for(model)
    valid = inputs["padding_mask"].astype(bool)
    error = np.abs(np.asarray(model(inputs)) - make_fixtures.run(opened, inputs)["logits"])[valid].max()
    assert error <= TOLERANCE


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore:Heads")
@pytest.mark.parametrize("family", list(make_fixtures.DECODERS))
def test_built_language_model_opens_in_transformers(family, tmp_path):
    """Without any config.json to pass through: every key that transformers needs is written."""
    model = tiny.perturb(tasks.CausalLM(tiny.backbone(family)))
    opened = reopen(make_fixtures.Case(family, "causal-lm"), model.save_pretrained(tmp_path / "saved"))
    inputs = tiny.inputs_for(model)
    results = make_fixtures.run(opened, inputs)
    check_results(family, model, inputs, results)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("bert", {"encoder__norm__placement": "pre"}, r"encoder\.norm\.placement='post'.*model\.save"),
        ("bert", {"encoder__feed_forward__gated": True}, r"encoder\.feed_forward\.gated=False, this one True"),
        ("gpt2", {"decoder__attention__window": 4}, r"decoder\.attention\.window=None, this one 4"),
        ("gpt2", {"decoder__attention__key_value_heads": 2}, r"decoder\.attention\.key_value_heads=None, this one 2"),
        ("bloom", {"decoder__feed_forward__size": 48}, r"decoder\.feed_forward\.size=128, this one 48"),
        ("opt", {"decoder__norm__placement": "parallel"}, r"norm.placement='post', this one 'parallel'"),
        ("opt", {"decoder__feed_forward__bias": False}, r"attention\.bias=False, this one True"),
        ("llama", {"decoder__attention__rotary": Rotary(fraction=0.5)}, "turns whole heads"),
        ("llama", {"decoder__attention__window": 4}, r"decoder\.attention\.window=None, this one 4"),
    ],
)
def test_what_a_family_cannot_say_is_refused(family, changes, message, tmp_path):
    model = tiny.backbone(family, **changes)
    with pytest.raises(checkpoints.CheckpointError, match=message):
        save(model, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore:Heads")
@pytest.mark.parametrize("name", ["gpt2-lm", "neox-shards", "bloom-classifier"])
def test_decoder_opens_in_transformers_after_fit(name, live, tiny_tokenizer, tmp_path, plain_kernels, eager):
    folder, inputs, _ = live(name)
    case = make_fixtures.CASES[name]
    model = open_case(name, folder, tiny_tokenizer)
    before = tiny.weights(model)
    targets = np.array([0, 1, 1]) if case.head == "text-classification" else np.roll(inputs["token_ids"], -1, axis=1)
    model.compile(learning_rate=1e-2, warmup=0.0)
    model.fit(inputs, targets, epochs=1, verbose=0)
    after = tiny.weights(model)
    assert all((before[path] != after[path]).any() for path in before if path.endswith(("query/kernel", "embeddings")))
    saved = save(model, tmp_path / "saved")
    check_results(name, model, inputs, make_fixtures.run(reopen(case, saved), inputs))


@pytest.fixture(scope="module")
def minilm():
    return samples.minilm()


@pytest.mark.samples
@pytest.mark.reference
def test_real_minilm_equals_torch(minilm):
    import torch
    import transformers

    reference = transformers.BertModel.from_pretrained(minilm, attn_implementation="eager").eval()
    tokenizer = tfxformer.text.Tokenizer.from_pretrained(minilm)
    encoding = tokenizer.encode(
        ["The striker scored twice.", "What a film, and what an ending!", "Rates rose again in July, the bank said."],
        sequence_length=32,
    )
    inputs = {name: getattr(encoding, name) for name in ("token_ids", "padding_mask", "segment_ids")}
    wanted = make_fixtures.run(reference, inputs)
    model = tfxformer.from_pretrained(minilm)
    valid = encoding.padding_mask.astype(bool)
    for ours, theirs in zip(model.forward(inputs)["hidden_states"], wanted["hidden_states"], strict=True):
        assert np.abs(np.asarray(ours) - theirs)[valid].max() <= 1e-5
    assert torch.is_tensor(reference.embeddings.word_embeddings.weight)
    assert np.abs(np.asarray(model(inputs)["pooled_output"]) - wanted["pooled_output"]).max() <= 1e-5


@pytest.mark.samples
def test_real_minilm_round_trip_is_bit_exact(minilm, tmp_path):
    model = tfxformer.from_pretrained(minilm)
    saved = save(model, tmp_path / "saved")
    before, after = read_tensors(Path(minilm)), read_tensors(saved)
    before = {name: value for name, value in before.items() if "position_ids" not in name}
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    shutil.rmtree(saved)
