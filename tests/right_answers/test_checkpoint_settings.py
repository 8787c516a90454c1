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
from tfxformer import checkpoints, export, tasks
from tfxformer.checkpoints import CheckpointError
from tfxformer.checkpoints.families import FAMILIES
from tfxformer.checkpoints.files import hub, safetensors
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


def test_dense_modules_prompts_and_default_prompt_name(dense_folder, tmp_path, eager):
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


@pytest.mark.road
def test_dense_modules_train_and_are_kept_in_files(dense_folder, tmp_path, eager):
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


# ---- tokenizers -----------------------------------------------------------------------------------------------

SENTENCES = ["good film , is n't it ?", "the bad dog 's mat .", "I 'm fast ! ' yes '"]


def byte_level(in_file: bool) -> dict:
    """A tokenizer.json of byte-level BPE; of each word there is one token with a space in front and one without."""
    tokenizer = Tokenizer.train_byte_level_bpe(SENTENCES * 3, 290)
    parts = json.loads(tokenizer.tokenizer_json())
    parts["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": in_file, "trim_offsets": True, "use_regex": True}
    return parts


def word_piece(cleanup: bool, lowercase: bool, folder) -> dict:
    parts = json.loads(tiny.tokenizer(folder).tokenizer_json())
    for token in ("'", "n't", "'s", "'m"):
        parts["model"]["vocab"][token] = len(parts["model"]["vocab"])
    parts["decoder"]["cleanup"] = cleanup
    parts["normalizer"]["lowercase"] = lowercase
    return parts


def tokenizer_folder(folder, parts, model_type=None, **settings):
    folder.mkdir()
    write_json(folder / "tokenizer.json", parts)
    write_json(folder / "tokenizer_config.json", settings)
    if model_type is not None:
        write_json(folder / "config.json", {"model_type": model_type})
    return folder


@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize("stated", [True, False, None])
@pytest.mark.parametrize("name", ["GPT2Tokenizer", "GPT2TokenizerFast", "gpt2", "PreTrainedTokenizerFast"])
def test_add_prefix_space_of_gpt2(name, stated, in_file, tmp_path):
    """GPT-2's class takes the setting (False where it is absent), whatever tokenizer.json says; the plain one the file.

    Right values: the class of transformers 5.24, `test_tokenizers_equal_transformers`.
    """
    settings = {} if name == "gpt2" else {"tokenizer_class": name}
    settings |= {} if stated is None else {"add_prefix_space": stated}
    folder = tokenizer_folder(tmp_path / "one", byte_level(in_file), "gpt2" if name == "gpt2" else None, **settings)
    tokenizer = Tokenizer.from_pretrained(folder)
    prefixed = in_file if name == "PreTrainedTokenizerFast" else bool(stated)
    assert (tokenizer.ids(["good"]) == tokenizer.ids([" good"])) == prefixed
    tokenizer.save_pretrained(tmp_path / "saved")
    assert Tokenizer.from_pretrained(tmp_path / "saved").ids(SENTENCES) == tokenizer.ids(SENTENCES)


@pytest.mark.parametrize("stated", [True, False, None])
def test_clean_up_tokenization_spaces_of_wordpiece(stated, tmp_path):
    """The replacements of transformers' `clean_up_tokenization`; BPE keeps its spaces, as there since version 5."""
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings |= {} if stated is None else {"clean_up_tokenization_spaces": stated}
    folder = tokenizer_folder(tmp_path / "one", word_piece(False, True, tmp_path), **settings)
    tokenizer = Tokenizer.from_pretrained(folder)
    (ids,) = tokenizer.ids(["the bad dog . good cat , very fast ?"], special_tokens=False)
    cleaned = "the bad dog. good cat, very fast?"
    assert tokenizer.decode([ids]) == [cleaned if stated else "the bad dog . good cat , very fast ?"]
    bytes_ = Tokenizer.from_pretrained(
        tokenizer_folder(tmp_path / "two", byte_level(False), clean_up_tokenization_spaces=stated)
    )
    assert bytes_.decode(bytes_.ids(["bad dog ."])) == ["bad dog ."]


@pytest.mark.reference
@pytest.mark.parametrize(
    "name", ["GPT2Tokenizer", "RobertaTokenizer", "BertTokenizer", "DistilBertTokenizerFast", None]
)
@pytest.mark.parametrize("in_file", [True, False])
def test_tokenizers_equal_transformers(name, in_file, tmp_path):
    """Ids and decoded texts, live, over the settings that change either."""
    import itertools

    import transformers

    bert = name is not None and "Bert" in name
    parts = word_piece(in_file, in_file, tmp_path) if bert else byte_level(in_file)
    if name == "RobertaTokenizer":
        vocabulary = parts["model"]["vocab"]
        for token in ("<s>", "</s>", "<unk>", "<pad>", "<mask>"):
            vocabulary[token] = len(vocabulary)
        ends = {"sep": ["</s>", vocabulary["</s>"]], "cls": ["<s>", vocabulary["<s>"]]}
        parts["post_processor"] = {
            "type": "RobertaProcessing",
            **ends,
            "trim_offsets": True,
            "add_prefix_space": in_file,
        }
    keys = ("do_lower_case", "clean_up_tokenization_spaces") if bert else ("add_prefix_space", "add_bos_token")
    for index, values in enumerate(itertools.product((True, False, None), repeat=2)):
        settings = {key: value for key, value in zip(keys, values, strict=True) if value is not None}
        settings |= {} if name is None else {"tokenizer_class": name}
        model_type = "opt" if name is None else None
        folder = tokenizer_folder(tmp_path / str(index), parts, model_type, **settings)
        ours, theirs = Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
        for text in (*SENTENCES, "GOOD Film  isn't", "é"):
            ids = theirs(text)["input_ids"]
            assert ours.ids([text]) == [ids], (settings, text)
            assert ours.decode([ids], skip_special_tokens=False) == [theirs.decode(ids)], (settings, text)


@pytest.mark.reference
@pytest.mark.parametrize(
    "stated",
    [
        {"added_tokens_decoder": {"DUE": {"content": "<x>", "lstrip": True, "rstrip": True, "special": True}}},
        {"added_tokens_decoder": {"DUE": {"content": "<x>", "normalized": False, "special": False}}},
        {"additional_special_tokens": ["good"]},
        {"extra_special_tokens": {"praise": "good"}},
    ],
)
def test_tokens_that_only_tokenizer_config_json_declares(stated, tmp_path):
    """Right: transformers' AutoTokenizer."""
    import transformers

    tiny.tokenizer(tmp_path).save_pretrained(tmp_path)
    stated = json.loads(json.dumps(stated).replace("DUE", str(len(tiny.VOCABULARY))))
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **stated}))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), Tokenizer.from_pretrained(tmp_path)
    for text in ("good <x> film<x>", "bad cat"):
        ids = theirs(text)["input_ids"]
        assert ours.ids([text])[0] == ids
        assert ours.decode([ids])[0] == theirs.decode(ids, skip_special_tokens=True)
    path.write_text(json.dumps({"added_tokens_decoder": {"7": {}}}))
    with pytest.raises(ValueError, match="added_tokens_decoder must have a token with its content for each id"):
        Tokenizer.from_pretrained(tmp_path)
    path.write_text(json.dumps({"model_max_length": "12"}))
    with pytest.raises(ValueError, match="model_max_length='12': wanted a positive whole number"):
        Tokenizer.from_pretrained(tmp_path)
    path.write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": "no"}))
    with pytest.raises(ValueError, match="do_lower_case='no': wanted true, false or null"):
        Tokenizer.from_pretrained(tmp_path)
    path.write_text(json.dumps({"eos_token": ["[SEP]"]}))
    with pytest.raises(ValueError, match=r"eos_token=\['\[SEP\]'\]: wanted a token's text"):
        Tokenizer.from_pretrained(tmp_path)


def test_duplicate_lines_of_a_vocabulary_are_said(tmp_path):
    """The last line counts, as in transformers' `load_vocab`."""
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in [*tiny.SPECIAL, "good", "film", "good"]))
    with pytest.warns(UserWarning, match=r"'good' in line 6.*the last one counts"):
        tokenizer = Tokenizer.from_vocabulary(path)
    assert tokenizer.ids(["good film"], special_tokens=False) == [[7, 6]]


# ---- heads, names, folders and the hub ------------------------------------------------------------------------


def classifier_folder(folder, labels=1):
    """A DistilBERT with a head of one label and no problem_type, as rerankers have it."""
    shutil.copytree(make_fixtures.FOLDER / "distilbert-classifier", folder)
    tensors = {name: np.array(array) for name, array in safetensors.open_folder(folder).items()}
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][:labels]
    safetensors.write(folder / "model.safetensors", tensors)
    configure(folder, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0}, problem_type="absent", num_labels="absent")
    return folder


def test_one_label_rerankers_are_regression(tmp_path, tiny_tokenizer):
    """The scores are the logits, as transformers gives them."""
    folder = classifier_folder(tmp_path / "reranker")
    model = tasks.TextClassifier.from_pretrained(folder, tokenizer=tiny_tokenizer)
    assert (model.labels, model.problem_type) == (["LABEL_0"], "regression")
    inputs = tiny.inputs_for(model)
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), model.logits(inputs, verbose=0))
    assert tasks.TextClassifier.from_pretrained(folder, labels=["score"], tokenizer=tiny_tokenizer).labels == ["score"]


@pytest.mark.reference
def test_one_label_rerankers_equal_torch(tmp_path, tiny_tokenizer):
    import torch
    import transformers

    folder = classifier_folder(tmp_path / "reranker")
    model = tasks.TextClassifier.from_pretrained(folder, tokenizer=tiny_tokenizer)
    inputs = tiny.inputs_for(model)
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = reference(
            input_ids=torch.tensor(inputs["token_ids"].astype("int64")),
            attention_mask=torch.tensor(inputs["padding_mask"].astype("int64")),
        ).logits
    np.testing.assert_allclose(np.asarray(model(inputs)), wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["camembert", "xlm-roberta"])
def test_camembert_is_roberta(name, tmp_path):
    """tests/checkpoints/test_families.py compares it, data2vec-text and ernie with torch."""
    folder = shutil.copytree(make_fixtures.FOLDER / "roberta-masked-lm", tmp_path / "checkpoint")
    before = tfxformer.from_pretrained(folder)
    inputs = tiny.inputs_for(before)
    wanted = np.asarray(before(inputs)["sequence_output"])
    configure(folder, model_type=name)
    model = tfxformer.from_pretrained(folder)
    np.testing.assert_array_equal(np.asarray(model(inputs)["sequence_output"]), wanted)
    saved = checkpoints.save_pretrained(tmp_path / "saved", model, model.config)
    written = json.loads((saved / "config.json").read_text())
    assert (written["model_type"], written["architectures"][0]) == (
        name,
        {"camembert": "CamembertModel", "xlm-roberta": "XLMRobertaModel"}[name],
    )


NEEDED = [
    *("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"),
    *("model-00001-of-00002.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    "additional_chat_templates/tool_use.jinja",
    *("special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "source.spm", "target.spm"),
    *("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling/config.json"),
    *("2_Dense/config.json", "2_Dense/model.safetensors", "0_Transformer/model.safetensors", "0_Transformer/vocab.txt"),
]
NOT_NEEDED = [
    *("consolidated.safetensors", "pytorch_model.bin", "2_Dense/pytorch_model.bin", "tf_model.h5", "rust_model.ot"),
    *("model.fp16.safetensors", "onnx/model.onnx", "onnx/config.json", "openvino/openvino_model.xml", "README.md"),
    *("original/tokenizer.model", "original/consolidated.00.pth", "openvino/model.safetensors", "flax_model.msgpack"),
    *("unigram.json", "train_script.py", "coreml/model.mlpackage", "model-q4.gguf", "pytorch_model.bin.index.json"),
]


def test_hub_download_patterns_and_a_revision(tmp_path, monkeypatch):
    """What the hub's own filter makes of our patterns; the revision reaches it from every from_pretrained."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    asked = []

    def snapshot_download(name, revision=None, allow_patterns=None, ignore_patterns=None):
        asked.append((name, revision, allow_patterns, ignore_patterns))
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    for load in (
        tfxformer.from_pretrained,
        tasks.TextClassifier.from_pretrained,
        tasks.TextEmbedder.from_pretrained,
        tasks.CausalLM.from_pretrained,
    ):
        with pytest.raises(CheckpointError, match=r"owner/name.*revision 'v1\.0'"):
            load("owner/name", revision="v1.0")
    assert [one[:2] for one in asked] == [("owner/name", "v1.0")] * 4
    _, _, allowed, ignored = asked[0]
    chosen = filter_repo_objects([*NEEDED, *NOT_NEEDED], allow_patterns=allowed, ignore_patterns=ignored)
    assert sorted(chosen) == sorted(NEEDED)
    with pytest.raises(CheckpointError, match="on this machine"):
        hub.resolve(tmp_path, revision="main")


def test_folder_without_tokenizer_files_serves_arrays(tmp_path):
    """One warning; texts are refused, arrays work; a tokenizer can be given later."""
    folder = shutil.copytree(make_fixtures.FOLDER / "bert-shards", tmp_path / "checkpoint")
    with pytest.warns(UserWarning) as caught:
        model = tasks.TextClassifier.from_pretrained(folder)
    assert [str(one.message) for one in caught if "no tokenizer files" in str(one.message)][1:] == []
    assert sum("no tokenizer files" in str(one.message) for one in caught) == 1
    assert np.isfinite(np.asarray(model(tiny.inputs_for(model)))).all()
    with pytest.raises(ValueError, match="no tokenizer"):
        model.predict(["good film"])
    saved = model.save_pretrained(tmp_path / "saved")
    assert not (saved / "tokenizer.json").exists()
    with pytest.warns(UserWarning, match="no tokenizer files"):
        tasks.TextEmbedder.from_pretrained(folder)
    (folder / "vocab.json").write_text("{}")  # an older format is none that can be passed over
    with pytest.raises(FileNotFoundError, match="other older formats"):
        tasks.TextClassifier.from_pretrained(folder)


def test_a_revision_on_the_command_line(tmp_path, monkeypatch):
    from tfxformer.recipes.models import open_task

    def resolve(name, revision=None):
        raise CheckpointError(f"asked for {name} at {revision}")

    monkeypatch.setattr("tfxformer.checkpoints.files.hub.resolve", resolve)
    with pytest.raises(CheckpointError, match=r"asked for owner/name at v1\.0"):
        open_task("owner/name@v1.0")
    with pytest.raises(CheckpointError, match=r"asked for owner/name at None"):
        open_task("owner/name")
    (tmp_path / "a@b").mkdir()
    with pytest.raises(CheckpointError, match=r"a@b at None"):
        open_task(str(tmp_path / "a@b"))


# What must stand beside a key, where another key's default does not fit its value.
BESIDE = {
    ("gpt_neo", "num_layers"): {"attention_types": [[["global"], 3]]},
    **{(name, key): {"rotary_dim": 2} for name in ("codegen", "gptj") for key in ("n_embd", "n_head")},
}


@pytest.mark.reference
@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"new"}))  # GTE's, whose code is beside its weights
def test_other_names_of_a_key_count(name):
    """transformers' `attribute_map` has them: distilbert's `num_attention_heads` is its `n_heads`."""
    import transformers

    values = {"hidden_size": 96, "num_attention_heads": 4, "num_hidden_layers": 3, "max_position_embeddings": 77}
    values |= {"head_dim": 12, "initializer_range": 0.5, "n_token": 1234}
    for other, key in transformers.CONFIG_MAPPING[name].attribute_map.items():
        beside = BESIDE.get((name, key), {})
        read = FAMILIES[name].read_config({other: values[other], **beside})
        assert read == FAMILIES[name].read_config({key: values[other], **beside}) != FAMILIES[name].read_config({})
