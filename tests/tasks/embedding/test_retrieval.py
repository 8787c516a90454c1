"""Search, similarity and shortened vectors of an embedder, and ranking: against sentence-transformers itself."""

import json

import numpy as np
import pytest
import tiny

from tfxformer import export, tasks
from tfxformer.checkpoints.sentence_transformers import SETTINGS_FILE

pytestmark = pytest.mark.usefixtures("plain_kernels")
QUERIES, DOCUMENTS = ["good film", "the dog"], [*dict.fromkeys(tiny.TEXTS), "a very good film", "a bad dog sat there"]
PROMPTS = {"query": "good cat ", "document": "a very "}


def embedder(tokenizer, **arguments):
    backbone = tiny.backbone(encoder__num_layers=1)
    return tiny.perturb(tasks.TextEmbedder(backbone, tokenizer=tokenizer, sequence_length=16, **arguments))


def reranker(tokenizer):
    backbone = tiny.backbone(encoder__num_layers=1)
    return tiny.perturb(tasks.TextClassifier(backbone, ["score"], "regression", tokenizer=tokenizer))


def test_search_finds_what_is_nearest_with_the_prompts_of_each_side(tiny_tokenizer):
    model = embedder(tiny_tokenizer, prompts=PROMPTS, default_prompt_name="query")
    asked = model.predict(["good cat " + text for text in QUERIES], prompt="", verbose=0)
    searched = model.predict(["a very " + text for text in DOCUMENTS], prompt="", verbose=0)
    order = np.argsort(-(asked @ searched.T), axis=1, kind="stable")[:, :3]
    found = model.search(QUERIES, DOCUMENTS, top_k=3)
    assert [[one.index for one in row] for row in found] == order.tolist()
    assert found[0][0].text == DOCUMENTS[order[0, 0]]
    again = model.search(asked, searched, top_k=3)
    assert [[one.index for one in row] for row in again] == order.tolist() and again[0][0].text is None
    wanted = model.predict(QUERIES, verbose=0) @ searched.T  # texts: by the default prompt
    np.testing.assert_allclose(model.similarity(QUERIES, searched), wanted, atol=1e-6)


def test_fewer_dimensions_are_the_first_numbers_in_files_too(tiny_tokenizer, tmp_path):
    whole = embedder(tiny_tokenizer)
    folder = whole.save_pretrained(tmp_path / "whole")
    short = tasks.TextEmbedder.from_pretrained(folder, dimensions=8)
    wanted = whole.predict(DOCUMENTS, verbose=0)[:, :8]
    np.testing.assert_allclose(short.predict(DOCUMENTS, verbose=0), wanted, atol=1e-6)
    saved = short.save_pretrained(tmp_path / "short")
    assert json.loads((saved / SETTINGS_FILE).read_text())["truncate_dim"] == 8
    assert tasks.TextEmbedder.from_pretrained(saved).dimensions == 8
    path = tmp_path / "short.tflite"
    export.export_litert(short, path, "float32")
    np.testing.assert_allclose(export.LiteRTModel(path).predict(DOCUMENTS), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="dimensions=33 must be a number of 1 to 32"):
        tasks.TextEmbedder.from_pretrained(folder, dimensions=33)


def test_only_a_reranker_ranks(tiny_tokenizer):
    classifier = tasks.TextClassifier(tiny.backbone(), ["bad", "good"], tokenizer=tiny_tokenizer)
    with pytest.raises(ValueError, match="rank asks a reranker"):
        classifier.rank("good film", DOCUMENTS)
    with pytest.raises(TypeError, match="rank takes one query"):
        reranker(tiny_tokenizer).rank(QUERIES, DOCUMENTS)


@pytest.mark.reference
@pytest.mark.parametrize("kind", [None, "dot", "euclidean", "manhattan"])
def test_search_equals_sentence_transformers(kind, tiny_tokenizer, tmp_path):
    from sentence_transformers import SentenceTransformer, util

    folder = embedder(tiny_tokenizer, prompts=PROMPTS, normalize=False).save_pretrained(tmp_path / "embedder")
    path = folder / SETTINGS_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "similarity_fn_name": kind, "truncate_dim": 12}))
    model = tasks.TextEmbedder.from_pretrained(folder)
    reference = SentenceTransformer(str(folder), device="cpu")
    asked, searched = reference.encode_query(QUERIES), reference.encode_document(DOCUMENTS)
    assert asked.shape == (2, 12)
    np.testing.assert_allclose(model.predict(QUERIES, prompt_name="query", verbose=0), asked, atol=1e-5)
    np.testing.assert_allclose(model.similarity(asked, searched), reference.similarity(asked, searched), atol=1e-5)
    wanted = util.semantic_search(asked, searched, top_k=4, score_function=reference.similarity)
    for ours, theirs in zip(model.search(QUERIES, DOCUMENTS, top_k=4), wanted, strict=True):
        assert [one.index for one in ours] == [one["corpus_id"] for one in theirs]
        np.testing.assert_allclose([one.score for one in ours], [one["score"] for one in theirs], atol=1e-5)


@pytest.mark.reference
@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
)
def test_ranks_equal_the_cross_encoder_of_sentence_transformers(stated, tiny_tokenizer, tmp_path):
    from sentence_transformers import CrossEncoder

    folder = reranker(tiny_tokenizer).save_pretrained(tmp_path / "reranker")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **stated}))
    wanted = CrossEncoder(str(folder), device="cpu").rank(QUERIES[0], DOCUMENTS, top_k=5, return_documents=True)
    found = tasks.TextClassifier.from_pretrained(folder).rank(QUERIES[0], DOCUMENTS, top_k=5, verbose=0)
    assert [one.text for one in found] == [one["text"] for one in wanted]
    np.testing.assert_allclose([one.score for one in found], [float(one["score"]) for one in wanted], atol=1e-5)


@pytest.mark.reference
def test_a_prompt_of_another_name_is_passed_over_as_there_and_said(tiny_tokenizer, tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = embedder(tiny_tokenizer, prompts={"query": "good cat ", "passage": "a very "}).save_pretrained(
        tmp_path / "e5"
    )
    reference, model = SentenceTransformer(str(folder), device="cpu"), tasks.TextEmbedder.from_pretrained(folder)
    wanted = reference.similarity(reference.encode_query(QUERIES), reference.encode_document(DOCUMENTS)).numpy()
    with pytest.warns(UserWarning, match="not with the model's 'passage'"):
        found = model.search(QUERIES, DOCUMENTS, top_k=len(DOCUMENTS))
    for row, scores in zip(found, wanted, strict=True):
        np.testing.assert_allclose([one.score for one in row], [scores[one.index] for one in row], atol=1e-5)
