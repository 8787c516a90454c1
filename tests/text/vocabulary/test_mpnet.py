"""MPNet's tokenizer: BERT's pieces between RoBERTa's <s> and </s>, from every kind of folder."""

import json
from pathlib import Path

import pytest

from tfxformer.text import Tokenizer

BERT = Path(__file__).parents[1] / "fixtures" / "bert-uncased"
STORED = json.loads((BERT.parent / "expected.json").read_text(encoding="utf-8"))
FRONT = ["<s>", "<pad>", "</s>", "<unk>"]
PIECES = (BERT / "vocab.txt").read_text(encoding="utf-8").splitlines()
TOKENS = [*FRONT, *PIECES, "<mask>"]
MARKS = ("[", "<")  # texts with special tokens in them, which are other ones here


def folder_of(path, **files):
    """A folder of the vocabulary and of JSON files."""
    path.mkdir()
    (path / "vocab.txt").write_text("".join(f"{token}\n" for token in TOKENS), encoding="utf-8")
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"tokenizer_class": "MPNetTokenizer"}},
        {"tokenizer_config": {"tokenizer_class": "MPNetTokenizerFast", "cls_token": {"content": "<s>"}}},
        {"config": {"model_type": "mpnet"}},
    ],
)
def test_ids_are_berts_behind_four_tokens_between_other_ends(files, tmp_path):
    tokenizer = Tokenizer.from_pretrained(folder_of(tmp_path / "folder", **files))
    tokenizer.save_pretrained(tmp_path / "saved")
    opened = Tokenizer.from_pretrained(tmp_path / "saved")
    assert opened.fingerprint == tokenizer.fingerprint
    assert "MPNetTokenizer" in json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())["tokenizer_class"]
    texts = [text for text in STORED["texts"] if not any(mark in text for mark in MARKS)]
    of_bert = dict(zip(STORED["texts"], STORED["families"]["bert-uncased"]["texts"], strict=True))
    for text in texts:
        encoding = opened.encode([text], sequence_length=600)
        ids = encoding.token_ids[0][encoding.padding_mask[0] == 1].tolist()
        assert ids == [0, *(number + len(FRONT) for number in of_bert[text][1:-1]), 2], text
    encoding = opened.encode(["a"], ["a"], sequence_length=8)
    one = TOKENS.index("a")
    assert encoding.token_ids[0].tolist() == [0, one, 2, 2, one, 2, 1, 1]
    assert (opened.cls_id, opened.padding_id, opened.sep_id) == (0, 1, 2)
    assert (opened.unknown_id, opened.mask_id) == (TOKENS.index("[UNK]"), len(TOKENS) - 1)


@pytest.mark.reference
def test_equals_transformers(tmp_path):
    import transformers

    reference = transformers.MPNetTokenizer({token: index for index, token in enumerate(TOKENS)})
    reference.save_pretrained(tmp_path / "saved")
    folder = folder_of(tmp_path / "folder", config={"model_type": "mpnet"})
    ours = [Tokenizer.from_pretrained(path) for path in (tmp_path / "saved", folder)]
    ours[1].save_pretrained(tmp_path / "ours")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert type(again).__name__ == "MPNetTokenizer"
    for text in STORED["texts"]:
        wanted = reference(text)["input_ids"]
        assert again(text)["input_ids"] == wanted
        for one in ours:
            encoding = one.encode([text], sequence_length=600)
            assert encoding.token_ids[0][encoding.padding_mask[0] == 1].tolist() == wanted, text
