"""Examples out of everything users pass, and batches."""

from pathlib import Path

import numpy as np
import pytest

from tfxformer.data.batches import is_dataset, is_text_dataset, read_examples, to_batch
from tfxformer.tasks.base.streams import read_given
from tfxformer.text import Tokenizer

TOKENIZER = Tokenizer.from_pretrained(Path(__file__).parents[1] / "text" / "fixtures" / "bert-uncased")
TEXTS = ["good film", "bad film", "Zoë said 中文"]
LABELS = ["yes", "no", "yes"]


def test_lists_arrays_and_columns():
    column = type("Series", (), {"tolist": lambda self: list(TEXTS)})()
    for texts in (TEXTS, tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object), column):
        assert read_examples(texts, LABELS) == (TEXTS, None, LABELS)
    assert read_examples(TEXTS, np.array([1, 0, 1])).labels == [1, 0, 1]
    pairs = [("a", "b"), ("c", "d")]
    for texts in (pairs, [list(pair) for pair in pairs], np.array(pairs)):
        assert read_examples(texts) == (["a", "c"], ["b", "d"], None)
    assert read_examples([["a", "b"], ["c", "d"]], words=True).texts == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(
    ("texts", "labels", "error", "message"),
    [
        ([], None, ValueError, "empty"),
        ("text", None, TypeError, "must be a list"),
        (5, None, TypeError, "must be a list"),
        ({"text": ["a"]}, None, TypeError, "pass one column"),
        ({"a", "b"}, None, TypeError, "pass one column"),
        (["a"], ["x", "y"], ValueError, "1 texts but 2 labels"),
        (["a", 1.5], None, TypeError, r"texts\[1\] is float"),
        (["a", ("b", "c")], None, TypeError, r"texts\[1\] is a tuple"),
        ([("a", b"b")], None, TypeError, r"pairs\[0\] is bytes"),
        ([["a", "b", "c"]], None, TypeError, "an example is a text, or a pair"),
    ],
)
def test_bad_examples(texts, labels, error, message):
    with pytest.raises(error, match=message):
        read_examples(texts, labels)


def read_dataset(dataset):
    """The examples of a dataset, as a task reads them."""
    given = read_given(dataset)
    return read_examples(given.x, given.y)


def test_datasets_of_texts():
    data = pytest.importorskip("tensorflow").data.Dataset
    labelled = data.from_tensor_slices((TEXTS, LABELS))
    for dataset in (labelled, labelled.batch(2), labelled.map(lambda text, label: (text, label))):
        assert is_dataset(dataset)
        assert is_text_dataset(dataset)
        assert read_dataset(dataset) == (TEXTS, None, LABELS)
    assert read_dataset(data.from_tensor_slices((TEXTS, [1, 0, 1]))).labels == [1, 0, 1]
    assert read_dataset(data.from_tensor_slices((TEXTS, [[1.0, 0.0]] * 3)).batch(2)).labels == [[1.0, 0.0]] * 3
    assert read_dataset(data.from_tensor_slices(TEXTS)) == (TEXTS, None, None)
    assert read_dataset(data.from_tensor_slices(TEXTS).batch(2)).texts == TEXTS
    pairs = data.from_tensor_slices(((TEXTS, TEXTS[::-1]), LABELS))
    assert read_dataset(pairs) == read_dataset(pairs.batch(2)) == (TEXTS, TEXTS[::-1], LABELS)


def test_datasets_of_batches_and_of_neither():
    data = pytest.importorskip("tensorflow").data.Dataset
    batch = to_batch(TOKENIZER.encode(TEXTS), segment_ids=True)
    assert not is_text_dataset(data.from_tensor_slices(batch).batch(2))
    assert not is_text_dataset(data.from_tensor_slices((batch, [0, 1, 0])).batch(2))
    for wrong in (data.range(3), data.from_tensor_slices({"text": TEXTS})):
        with pytest.raises(TypeError, match="token_ids"):
            is_text_dataset(wrong)
    with pytest.raises(ValueError, match="never ends"):
        read_dataset(data.from_tensor_slices(TEXTS).repeat())
    with pytest.raises(ValueError, match="empty"):
        read_dataset(data.from_tensor_slices(TEXTS).take(0))
    assert not is_dataset(TEXTS)
    assert not is_dataset(np.zeros(3))


def test_batches_and_their_one_warning():
    encoding = TOKENIZER.encode(TEXTS, sequence_length=4)
    with pytest.warns(UserWarning, match=f"{encoding.truncated} of 3 texts were longer than 4 tokens") as seen:
        batch = to_batch(encoding, segment_ids=False)
    assert len(seen) == 1
    assert sorted(batch) == ["padding_mask", "token_ids"]
    assert batch["token_ids"].dtype == np.int32
    assert "segment_ids" in to_batch(TOKENIZER.encode(TEXTS), segment_ids=True)
