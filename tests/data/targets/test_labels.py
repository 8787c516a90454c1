"""Labels made targets."""

import numpy as np
import pytest

from tfxformer.data.targets.labels import check_labels, encode_labels, label_keys, labels_from

NAMES = ["no", "yes", "perhaps"]
SINGLE, MULTI = "single_label_classification", "multi_label_classification"


@pytest.mark.parametrize(
    "labels",
    [
        ["yes", "no"],
        ("yes", "no"),
        np.array(["yes", "no"]),
        [1, 0],
        np.array([1, 0]),
        [np.int64(1), 0],
        [1.0, False],
        np.array([[1], [0]]),
    ],
)
def test_one_label_by_name_or_id(labels):
    ids = encode_labels(labels, NAMES, SINGLE)
    assert ids.tolist() == [1, 0]
    assert ids.dtype == np.int32


@pytest.mark.parametrize("bad", ["maybe", 3, -1, 1.5, None, float("nan"), ["yes", "no"]])
def test_a_label_that_is_none_is_named(bad):
    with pytest.raises(ValueError, match="Example 1 has"):
        encode_labels(["yes", bad], NAMES, SINGLE)


def test_several_labels_by_name_id_or_row():
    wanted = [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    for labels in ([["yes", "perhaps"], [], ["no"]], [[1, 2], [], [0]], wanted, np.array(wanted, np.float32)):
        rows = encode_labels(labels, NAMES, MULTI)
        np.testing.assert_array_equal(rows, wanted)
        assert rows.dtype == np.float32
    with pytest.raises(ValueError, match="Example 1 has the label 'maybe'"):
        encode_labels([["no"], ["maybe"]], NAMES, MULTI)


def test_scores():
    assert encode_labels([1, 2.5], ["score"], "regression").tolist() == [[1.0], [2.5]]
    assert encode_labels(np.zeros((4, 2)), ["a", "b"], "regression").shape == (4, 2)
    with pytest.raises(ValueError, match="1 scores, the model 2"):
        encode_labels([1.0], ["a", "b"], "regression")
    with pytest.raises(ValueError, match="Target 1 is not a finite"):
        encode_labels([1.0, float("nan")], ["a"], "regression")


def test_names_and_config_keys():
    keys = label_keys(NAMES)
    assert keys["id2label"] == {"0": "no", "1": "yes", "2": "perhaps"}
    assert labels_from(keys, None) == NAMES
    many = [f"label {index}" for index in range(12)]
    assert labels_from(label_keys(many), None) == many  # "10" sorts after "9"
    assert labels_from(keys, ["a", "b"]) == ["a", "b"]
    assert labels_from({"num_labels": 2}, None) == ["LABEL_0", "LABEL_1"]
    with pytest.raises(ValueError, match="names no labels"):
        labels_from({}, None)
    for bad in ("yes", 3, [], [1, 2]):
        with pytest.raises(TypeError, match="labels must be a list"):
            check_labels(bad)
    with pytest.raises(ValueError, match="come once"):
        check_labels(["a", "a"])
