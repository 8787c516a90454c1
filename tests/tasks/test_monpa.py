"""MONPA, a tagger of Chinese words and names, against transformers' AlbertForTokenClassification and its own answers.

Its licence (CC BY-NC-SA 4.0) is for whoever runs these tests to accept: TFXFORMER_TERMS=monpa.
"""

import os

import numpy as np
import pytest

from tfxformer import samples, tasks
from tfxformer.checkpoints import PickleFile
from tfxformer.text import Tokenizer

pytestmark = [
    pytest.mark.samples,
    pytest.mark.slow,
    pytest.mark.skipif(
        "monpa" not in os.environ.get("TFXFORMER_TERMS", ""),
        reason="a licence is to be accepted: https://creativecommons.org/licenses/by-nc-sa/4.0/, TFXFORMER_TERMS=monpa",
    ),
]
# What MONPA's own program says: the first on the package's page on PyPI.
ANSWERS = {
    "蔡英文總統今天受邀參加台北市政府所舉辦的陽明山馬拉松比賽。": (
        "蔡英文/PER 總統/Na 今天/Nd 受/P 邀/VF 參加/VC 台北市政府/ORG 所/D 舉辦/VC 的/DE 陽明山/LOC 馬拉松/Na 比賽/Na "
        "。/PERIODCATEGORY"
    ),
    "台北市長柯文哲今天下午在市政府接受記者訪問": (
        "台北/LOC 市長/Na 柯文哲/PER 今天/Nd 下午/Nd 在/P 市政府/ORG 接受/VC 記者/Na 訪問/VC"
    ),
}
FURTHER = ["馬英九在臺灣大學演講", "王大明今天到高雄拜訪台積電公司"]
TEXTS = [list(text) for text in (*ANSWERS, *FURTHER)]


@pytest.fixture(scope="module")
def folder():
    return samples.monpa(accept_terms=True)


@pytest.fixture(scope="module")
def tagger(folder):
    with pytest.warns(match="in the file, but not used: pooler"):
        return tasks.TokenClassifier.from_pretrained(folder)


def words(text: str, labels: list[str]) -> str:
    """Words with their classes; a label is B, I, E or S, and behind a dash the class ("N-" before those of words)."""
    found = []
    for letter, label in zip(text, labels, strict=True):
        position, _, kind = label.partition("-")
        if position in "BS" or not found:
            found.append([letter, kind.removeprefix("N-")])
        else:
            found[-1][0] += letter
    return " ".join("/".join(word) for word in found)


def best_path(logits, start, transitions, end):
    """The best path of labels through a conditional random field (Viterbi, 1967): int [S]."""
    score, came_from = start + logits[0], []
    for row in logits[1:]:
        paths = score[:, None] + transitions + row
        came_from.append(paths.argmax(0))
        score = paths.max(0)
    path = [int((score + end).argmax())]
    for before in reversed(came_from):
        path.append(int(before[path[-1]]))
    return path[::-1]


def test_the_tags_are_those_of_transformers(folder, tagger):
    import torch
    from transformers import AlbertForTokenClassification

    reference = AlbertForTokenClassification.from_pretrained(folder, attn_implementation="eager").eval()
    batch = tagger.encode(TEXTS)
    logits = tagger.logits(batch, 8, verbose=0)
    with torch.no_grad():
        wanted = reference(
            torch.from_numpy(batch["token_ids"]).long(), torch.from_numpy(batch["padding_mask"]).long()
        ).logits.numpy()
    real = batch["padding_mask"] > 0
    assert np.abs(logits - wanted)[real].max() < 1e-4 * np.abs(wanted[real]).max()
    assert (logits.argmax(-1) == wanted.argmax(-1))[real].all()
    said = tagger.predict(TEXTS, verbose=0)
    assert [[tagger.labels.index(label) for label in row] for row in said] == [
        row[1 : 1 + len(text)].argmax(-1).tolist() for row, text in zip(wanted, TEXTS, strict=True)
    ]


def test_the_words_and_names_are_monpas_own(tagger):
    """Its conditional random field chooses among the labels; its transitions come out of the package's pickle."""
    tensors = PickleFile(samples.fetch("monpa", accept_terms=True) / "model" / "monpa_model_8000.pt")
    start, transitions, end = (tensors[f"crf_layer.{name}transitions"] for name in ("start_", "", "end_"))
    logits = tagger.logits(tagger.encode(TEXTS), 8, verbose=0)
    for text, row in zip(ANSWERS, logits, strict=False):
        path = best_path(row[: len(text) + 2], start, transitions, end)[1:-1]
        assert words(text, [tagger.labels[index] for index in path]) == ANSWERS[text]
    # Of the second one the likeliest label of each character says the same.
    assert words("".join(TEXTS[1]), tagger.predict(TEXTS, verbose=0)[1]) == ANSWERS["".join(TEXTS[1])]


def test_ids_count_each_token_once(folder):
    """The vocabulary has "1" on rows 16 and 33, and no second id for it: by row numbers all behind it would be off."""
    vocabulary = Tokenizer.from_pretrained(folder).vocabulary()
    rows = (samples.fetch("monpa", accept_terms=True) / "vocab_monpa.vocab").read_text(encoding="utf-8").splitlines()
    assert (len(rows), len(vocabulary), rows.index("1"), rows.index("1", 17)) == (7240, 7239, 16, 33)
    assert (vocabulary[:33], vocabulary[33:]) == (rows[:33], rows[34:])
