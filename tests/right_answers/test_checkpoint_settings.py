"""Settings of a checkpoint that were silently passed over: each counts, and is written back as it was read."""

import json
import shutil

import batteries
import make_fixtures
import numpy as np
import pytest
import tiny
from checkpoint_folders import configure

import tfxformer
from tfxformer import export, tasks
from tfxformer.checkpoints import safetensors
from tfxformer.text import Tokenizer

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("plain_kernels")]
TEXTS = ["good film", "the bad dog sat on the mat and a very good cat ran fast in london and paris", "a"]
OLD, NEW = "sentence_transformers.models", "sentence_transformers.base.modules"
# Kind -> the formula of sentence-transformers' Pooling, on a text's real tokens [S, D].
FORMULAS = {
    "mean": lambda x: x.mean(0),
    "cls": lambda x: x[0],
    "max": lambda x: x.max(0),
    "lasttoken": lambda x: x[-1],
    "weightedmean": lambda x: (x * np.arange(1, len(x) + 1)[:, None]).sum(0) / np.arange(1, len(x) + 1).sum(),
    "mean_sqrt_len_tokens": lambda x: x.sum(0) / np.sqrt(len(x)),
}
LEGACY = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "lasttoken": "pooling_mode_lasttoken",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The folder of a bare BERT, 24 wide, with a tokenizer of 100 words."""
    folder = shutil.copytree(
        make_fixtures.FOLDER / "bert-relu-three-types", tmp_path_factory.mktemp("encoder") / "bert"
    )
    configure(folder, vocab_size=tiny.VOCABULARY_SIZE)
    table = np.random.default_rng(0).normal(size=(tiny.VOCABULARY_SIZE, 24)).astype("float32")
    tensors = {name: np.array(array) for name, array in safetensors.open_folder(folder).items()}
    tensors = {name: array for name, array in tensors.items() if not name.startswith("cls.")}
    safetensors.write(folder / "model.safetensors", {**tensors, "bert.embeddings.word_embeddings.weight": table})
    tiny.tokenizer(tmp_path_factory.mktemp("vocabulary")).save_pretrained(folder)
    return folder


def write_json(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


def embedder_folder(
    encoder, folder, kinds=("Transformer", "Pooling"), pooling=None, settings=None, own=None, package=OLD
):
    """A folder as sentence-transformers writes it, by hand."""
    folder = shutil.copytree(encoder, folder)
    paths = ["", *(f"{index}_{kind}" for index, kind in enumerate(kinds) if index)]
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"{package}.{kind}"}
            for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
        ],
    )
    write_json(folder / "1_Pooling" / "config.json", pooling or {"word_embedding_dimension": 24, LEGACY["mean"]: True})
    if settings is not None:
        write_json(folder / "config_sentence_transformers.json", settings)
    if own is not None:
        write_json(folder / "sentence_bert_config.json", own)
    return folder


def hidden_states(folder, texts, length=None):
    """The encoder's output on each text alone, cut at a length: list of [S, D]."""
    backbone = tfxformer.from_pretrained(folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    encoded = [tokenizer.encode([text], sequence_length=length if length else None) for text in texts]
    states = []
    for one in encoded:
        batch = {"token_ids": one.token_ids, "padding_mask": one.padding_mask, "segment_ids": one.segment_ids}
        states.append(np.asarray(backbone(batch)["sequence_output"])[0][one.padding_mask[0] == 1])
    return states


def json_files(folder):
    """What describes an embedder, by path."""
    names = [path for path in folder.rglob("*.json") if "tokenizer" not in path.name and path.name != "config.json"]
    names += list(folder.glob("*_*/config.json"))
    return {str(path.relative_to(folder)): json.loads(path.read_text()) for path in names}


def embed(model, texts=TEXTS, **options):
    """What `predict` gives, without compiling a step for each model."""
    return np.asarray(model(model.encode(texts, **options)))


def test_sentence_transformers_folder_whose_modules_json_has_no_normalize(encoder, tmp_path):
    """Vectors as long as they are, and the saved folder says the same."""
    folder = embedder_folder(encoder, tmp_path / "embedder")
    model = tasks.TextEmbedder.from_pretrained(folder)
    wanted = np.stack([state.mean(0) for state in hidden_states(folder, TEXTS)])
    np.testing.assert_allclose(embed(model), wanted, atol=1e-5)
    assert np.linalg.norm(wanted, axis=-1).min() > 1.5
    saved = model.save_pretrained(tmp_path / "saved")
    assert json_files(saved) == json_files(folder)
    np.testing.assert_allclose(embed(tasks.TextEmbedder.from_pretrained(saved)), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", list(FORMULAS))
def test_the_pooling_file_of_sentence_transformers_6_2(kind, encoder, tmp_path):
    """`pooling_mode: "mean"`, and the older form with a switch for each kind, by the formulas above."""
    forms = [
        {"embedding_dimension": 24, "pooling_mode": kind, "include_prompt": True},
        {"word_embedding_dimension": 24, **{key: one == kind for one, key in LEGACY.items()}},
    ]
    kinds = ("Transformer", "Pooling", "Normalize")
    vectors = []
    for index, form in enumerate(forms):
        folder = embedder_folder(encoder, tmp_path / f"{index}", kinds, form, package=(NEW, OLD)[index])
        model = tasks.TextEmbedder.from_pretrained(folder)
        assert json_files(model.save_pretrained(tmp_path / f"saved-{index}")) == json_files(folder)
        vectors.append(embed(model))
    wanted = np.stack([FORMULAS[kind](state) for state in hidden_states(folder, TEXTS)])
    wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
    for found in vectors:
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_several_poolings_are_put_side_by_side(encoder, tmp_path):
    pooling = {"embedding_dimension": 24, "pooling_mode": ["max", "cls"]}
    folder = embedder_folder(encoder, tmp_path / "embedder", pooling=pooling)
    model = tasks.TextEmbedder.from_pretrained(folder)
    wanted = np.stack([np.concatenate([state.max(0), state[0]]) for state in hidden_states(folder, TEXTS)])
    np.testing.assert_allclose(embed(model), wanted, atol=1e-5)
    again = tasks.TextEmbedder(model.backbone, ["max", "cls"], False, tokenizer=model.tokenizer)
    opened = tasks.TextEmbedder.from_pretrained(again.save_pretrained(tmp_path / "saved"))
    np.testing.assert_allclose(embed(opened), wanted, atol=1e-5)


@pytest.mark.parametrize("place", ["sentence_bert_config.json", "tokenizer_config.json"])
def test_max_seq_length_is_honoured(place, encoder, tmp_path):
    """Version 6.2 writes it as the tokenizer's own limit; all before it in a file of its own."""
    own = {"max_seq_length": 7, "do_lower_case": False} if place == "sentence_bert_config.json" else None
    folder = embedder_folder(encoder, tmp_path / "embedder", own=own)
    if own is None:
        settings = json.loads((folder / place).read_text())
        write_json(folder / place, {**settings, "model_max_length": 7})
    model = tasks.TextEmbedder.from_pretrained(folder)
    wanted = np.stack([state.mean(0) for state in hidden_states(folder, TEXTS, 7)])
    np.testing.assert_allclose(embed(model), wanted, atol=1e-5)
    assert model.encode(TEXTS)["token_ids"].shape == (3, 7)
    assert json_files(model.save_pretrained(tmp_path / "saved")) == json_files(folder)
    longer = tasks.TextEmbedder.from_pretrained(folder, max_length=30)
    whole = np.stack([state.mean(0) for state in hidden_states(folder, TEXTS, 30)])
    np.testing.assert_allclose(embed(longer), whole, atol=1e-5)
    again = tasks.TextEmbedder.from_pretrained(longer.save_pretrained(tmp_path / "longer"))
    np.testing.assert_allclose(embed(again), whole, atol=1e-5)


@pytest.fixture(scope="module")
def dense_folder(encoder, tmp_path_factory):
    """Mean, a dense layer with tanh, one without a bias or activation, unit length; prompts; 12 tokens at most."""
    settings = {"prompts": {"query": "good cat ", "other": "bad "}, "default_prompt_name": "query", "kept": 1}
    folder = embedder_folder(
        encoder,
        tmp_path_factory.mktemp("dense") / "embedder",
        ("Transformer", "Pooling", "Dense", "Dense", "Normalize"),
        settings=settings,
        own={"max_seq_length": 12, "do_lower_case": False},
    )
    generator = np.random.default_rng(1)
    for index, (width, units, bias, name) in {
        2: (24, 10, True, "activation.Tanh"),
        3: (10, 6, False, "linear.Identity"),
    }.items():
        own = {
            "in_features": width,
            "out_features": units,
            "bias": bias,
            "activation_function": f"torch.nn.modules.{name}",
        }
        write_json(folder / f"{index}_Dense" / "config.json", own)
        tensors = {"linear.weight": generator.normal(size=(units, width)).astype("float32")}
        tensors |= {"linear.bias": generator.normal(size=units).astype("float32")} if bias else {}
        safetensors.write(folder / f"{index}_Dense" / "model.safetensors", tensors)
    return folder


def dense_vectors(folder, texts):
    """What the modules of `dense_folder` compute, in numpy."""
    first, second = (safetensors.open_folder(folder / f"{index}_Dense") for index in (2, 3))
    rows = []
    for state in hidden_states(folder, texts, 12):
        x = np.tanh(first["linear.weight"] @ state.mean(0) + first["linear.bias"])
        rows.append(second["linear.weight"] @ x)
    return np.stack(rows) / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_dense_modules_prompts_and_default_prompt_name(dense_folder, tmp_path):
    model = tasks.TextEmbedder.from_pretrained(dense_folder)
    for options, prompt in (
        ({}, "good cat "),
        ({"prompt_name": "other"}, "bad "),
        ({"prompt_name": "document"}, ""),  # sentence-transformers has "query" and "document" always
        ({"prompt": "slow "}, "slow "),
        ({"prompt": ""}, ""),
    ):
        wanted = dense_vectors(dense_folder, [prompt + text for text in TEXTS])
        np.testing.assert_allclose(model.predict(TEXTS, verbose=0, **options), wanted, atol=1e-5)
        assert (model.encode(TEXTS, **options)["token_ids"] == model.encode(TEXTS, prompt=prompt)["token_ids"]).all()
    with pytest.raises(ValueError, match=r"no prompt 'qery'.*'query'"):
        model.predict(TEXTS, prompt_name="qery")
    with pytest.raises(ValueError, match="arrays have theirs"):
        model.predict(model.encode(TEXTS), prompt_name="query")
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    first = model.predict(TEXTS, verbose=0)
    np.testing.assert_allclose(model.predict(pairs, verbose=0), (first * first[::-1]).sum(-1), atol=1e-5)
    saved = model.save_pretrained(tmp_path / "saved")
    assert json_files(saved) == json_files(dense_folder)
    for index in (2, 3):
        read, written = (safetensors.open_folder(one / f"{index}_Dense") for one in (dense_folder, saved))
        assert all((np.asarray(read[name]) == written[name]).all() for name in read)


def test_dense_modules_train_and_are_kept_in_files(dense_folder, tmp_path):
    model = tasks.TextEmbedder.from_pretrained(dense_folder, max_length=16)
    batteries.check_task(
        model,
        list(zip(TEXTS, TEXTS, strict=True)) * 4,
        [1.0, 0.5, -1.0] * 4,
        tmp_path,
        same=lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    )


def test_exported_embedders_read_prompts_and_lengths_as_keras_does(dense_folder, tmp_path):
    model = tasks.TextEmbedder.from_pretrained(dense_folder)
    report = export.export_litert(model, tmp_path / "model.tflite", "float32")
    file = export.LiteRTModel(tmp_path / "model.tflite")
    assert file.sequence_length == 12 and report.error < 1e-5
    for options in ({}, {"prompt_name": "other"}, {"prompt": ""}):
        np.testing.assert_allclose(file.predict(TEXTS, **options), embed(model, **options), atol=1e-5)
    with pytest.raises(ValueError, match="no prompt 'qery'"):
        file.predict(TEXTS, prompt_name="qery")


def test_a_file_longer_than_the_longest_text_cuts_where_keras_does(encoder, tmp_path):
    """All poolings at once, and prompts that are seen but not pooled."""
    pooling = {"embedding_dimension": 24, "pooling_mode": list(FORMULAS), "include_prompt": False}
    settings = {"prompts": {"query": "good cat "}, "default_prompt_name": "query"}
    folder = embedder_folder(
        encoder, tmp_path / "embedder", pooling=pooling, settings=settings, own={"max_seq_length": 9}
    )
    model = tasks.TextEmbedder.from_pretrained(folder)
    prompted = hidden_states(folder, ["good cat " + text for text in TEXTS], 9)
    kept = [state[3:] for state in prompted]  # [CLS] good cat are left out
    wanted = [np.concatenate([FORMULAS[kind](state) for kind in FORMULAS]) for state in kept]
    weighted = [k.T @ np.arange(4, 4 + len(k)) / np.arange(4, 4 + len(k)).sum() for k in kept]  # positions stay
    place = list(FORMULAS).index("weightedmean") * 24
    wanted = np.stack([np.concatenate([w[:place], v, w[place + 24 :]]) for w, v in zip(wanted, weighted, strict=True)])
    np.testing.assert_allclose(embed(model), wanted, atol=1e-4)
    export.export_litert(model, tmp_path / "model.tflite", "float32", sequence_length=32)
    file = export.LiteRTModel(tmp_path / "model.tflite")
    np.testing.assert_allclose(file.predict(TEXTS), wanted, atol=1e-4)
    assert json_files(model.save_pretrained(tmp_path / "saved")) == json_files(folder)


def test_do_lower_case_of_sentence_transformers(encoder, tmp_path):
    """It lowercases before the tokenizer, whatever that does itself."""
    folder = embedder_folder(encoder, tmp_path / "embedder", own={"max_seq_length": 20, "do_lower_case": True})
    parts = json.loads((folder / "tokenizer.json").read_text())
    parts["normalizer"] |= {"lowercase": False, "strip_accents": False}
    write_json(folder / "tokenizer.json", parts)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", {**settings, "do_lower_case": False, "strip_accents": False})
    model = tasks.TextEmbedder.from_pretrained(folder)
    np.testing.assert_array_equal(model.encode(["GOOD Film"])["token_ids"], model.encode(["good film"])["token_ids"])
    saved = model.save_pretrained(tmp_path / "saved")
    assert json_files(saved) == json_files(folder)
    np.testing.assert_array_equal(embed(tasks.TextEmbedder.from_pretrained(saved)), embed(model))


def test_encoder_in_a_folder_of_its_own(encoder, tmp_path):
    """The layout of versions 0 and 1: 0_Transformer, 1_Pooling."""
    folder = tmp_path / "embedder"
    shutil.copytree(encoder, folder / "0_Transformer")
    types = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": f"{OLD}.Transformer"}]
    types += [{"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{OLD}.Pooling"}]
    write_json(folder / "modules.json", types)
    write_json(folder / "1_Pooling" / "config.json", {LEGACY["max"]: True})
    write_json(folder / "0_Transformer" / "sentence_bert_config.json", {"max_seq_length": 6})
    model = tasks.TextEmbedder.from_pretrained(folder)
    wanted = np.stack([state.max(0) for state in hidden_states(folder / "0_Transformer", TEXTS, 6)])
    np.testing.assert_allclose(embed(model), wanted, atol=1e-5)
    again = tasks.TextEmbedder.from_pretrained(model.save_pretrained(tmp_path / "saved"))
    np.testing.assert_array_equal(embed(again), embed(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"modules.json": [{"type": f"{OLD}.Transformer", "path": ""}, {"type": f"{OLD}.Router", "path": "1"}]},
            "queries",
        ),
        ({"modules.json": [{"type": f"{OLD}.Asym", "path": ""}]}, "queries and documents by different modules"),
        ({"modules.json": [{"type": f"{OLD}.Transformer", "path": ""}, {"type": f"{OLD}.CNN", "path": "1"}]}, "lists"),
        ({"modules.json": [{"type": "custom_st.Transformer", "path": ""}]}, "code that comes with the checkpoint"),
        ({"modules.json": [{"type": f"{OLD}.Transformer", "path": "../other"}]}, "must lie beside"),
        ({"modules.json": []}, "no list of modules"),
        ({"modules.json": {"a": 1}}, "modules.json holds a dict"),
        ({"1_Pooling/config.json": {"pooling_mode": "median"}}, "median"),
        ({"1_Pooling/config.json": {"pooling_mode_new_tokens": True}}, "pooling_mode_new_tokens"),
        ({"sentence_bert_config.json": {"max_seq_length": "many"}}, "max_seq_length='many'"),
        ({"sentence_bert_config.json": {"transformer_task": "fill-mask"}}, "fill-mask"),
        ({"config_sentence_transformers.json": {"model_type": "SparseEncoder"}}, "SparseEncoder"),
        ({"config_sentence_transformers.json": {"default_prompt_name": "absent"}}, "no prompt 'absent'"),
    ],
)
def test_modules_that_would_give_other_vectors_are_refused(change, message, encoder, tmp_path):
    folder = embedder_folder(encoder, tmp_path / "embedder")
    for name, content in change.items():
        write_json(folder / name, content)
    with pytest.raises(ValueError, match=message):
        tasks.TextEmbedder.from_pretrained(folder)


@pytest.mark.reference
@pytest.mark.parametrize("prompts", [None, {"query": "good cat ", "document": "a very "}])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_vectors_equal_sentence_transformers(prompts, include_prompt, encoder, tmp_path):
    """The package itself, on a folder that it has written and on the one that we write back."""
    import torch
    from sentence_transformers import SentenceTransformer, models

    torch.manual_seed(0)
    modules = [models.Transformer(str(encoder), max_seq_length=14)]
    modules += [models.Pooling(24, tuple(FORMULAS), include_prompt=include_prompt)]
    modules += [models.Dense(144, 12), models.Dense(12, 6, bias=False, activation_function=torch.nn.GELU())]
    default = prompts and "document"
    reference = SentenceTransformer(modules=modules, prompts=prompts, default_prompt_name=default, device="cpu")
    reference.save(str(tmp_path / "embedder"))
    model = tasks.TextEmbedder.from_pretrained(tmp_path / "embedder")
    saved = model.save_pretrained(tmp_path / "saved")
    assert json_files(saved) == json_files(tmp_path / "embedder")
    opened = SentenceTransformer(str(saved), device="cpu")
    for options in ({}, {"prompt_name": "query"}, {"prompt": "slow "}, {"prompt": ""}):
        wanted = reference.encode(TEXTS, **options)
        np.testing.assert_allclose(embed(model, **options), wanted, atol=2e-5)
        np.testing.assert_allclose(opened.encode(TEXTS, **options), wanted, atol=1e-6)
