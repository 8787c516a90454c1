"""Each rule of a checkpoint by hand, in numpy and as the compiled loop writes it; elsewhere against transformers."""

import keras
import numpy as np
import pytest

from tfxformer.numpy_ops import NUMPY
from tfxformer.text.generation.token_rules import Rows, TokenRules

# Two texts: 5 6 5 behind one padded slot, and 7 8 9 8. Their prompts end at slot 2, the texts at the latest at slot 6.
TOKENS = np.array([[0, 5, 6, 5, 0, 0], [7, 8, 9, 8, 0, 0]], "int32")
LOGITS = np.array([np.linspace(-1.5, 4.0, 12), np.linspace(3.0, -2.5, 12)], "float32")
END = 2


def apply(ops, slot=4, **rules):
    rows = Rows(TOKENS, np.int32(slot), np.array([1, 0], "int32"), np.int32(2), np.int32(6))
    return np.asarray(TokenRules(eos_token_id=(END,), **rules).apply(LOGITS, rows, ops))


def without(*banned):
    """The logits without these ids, of the first text and of the second."""
    wanted = LOGITS.copy()
    for row, ids in zip(wanted, banned, strict=True):
        row[list(ids)] = -np.inf
    return wanted


def only(token):
    """What leaves one token to choose."""
    wanted = np.full_like(LOGITS, -np.inf)
    wanted[:, token] = 0
    return wanted


SAME = without((), ())
BIASED = LOGITS + np.array([[0, 0, 0, 0, 1.5] + [0] * 7, [0, 0, 0, -2.0, 1.5] + [0] * 7], "float32")
CASES = {
    "ends before the last slot": ({"forced_eos_token_id": (END,)}, 4, SAME),
    "ends in the last slot": ({"forced_eos_token_id": (END,)}, 5, only(END)),
    "two new tokens of three": ({"min_new_tokens": 3}, 4, without((END,), (END,))),
    "three new tokens of three": ({"min_new_tokens": 3}, 5, SAME),
    "three tokens of four, and four": ({"min_length": 4}, 4, without((END,), ())),
    "ngrams": ({"no_repeat_ngram_size": 2}, 4, without((6,), (9,))),
    "bad words": ({"bad_words_ids": ((4,), (8, 3))}, 4, without((4,), (4, 3))),
    "biased": ({"sequence_bias": (((4,), 1.5), ((8, 3), -2.0))}, 4, BIASED),
    "suppressed": ({"suppress_tokens": (0, 11)}, 4, without((0, 11), (0, 11))),
    "the first new token": ({"begin_suppress_tokens": (7,)}, 2, without((7,), (7,))),
    "the second new token": ({"begin_suppress_tokens": (7,)}, 3, SAME),
    "not the beginning": ({"forced_bos_token_id": 9}, 4, SAME),
}


@pytest.mark.parametrize("ops", [NUMPY, keras.ops], ids=["numpy", "keras"])
@pytest.mark.parametrize("case", CASES)
def test_by_hand(case, ops):
    rules, slot, wanted = CASES[case]
    np.testing.assert_allclose(apply(ops, slot, **rules), wanted, rtol=1e-6)


@pytest.mark.parametrize("ops", [NUMPY, keras.ops], ids=["numpy", "keras"])
def test_the_beginning_is_forced_after_one_token(ops):
    rows = Rows(TOKENS[1:], np.int32(1), np.array([0], "int32"), np.int32(1), np.int32(6))
    found = TokenRules(forced_bos_token_id=9, begin_suppress_tokens=(9,)).apply(LOGITS[1:], rows, ops)
    np.testing.assert_array_equal(np.asarray(found), only(9)[1:])  # the next one is the beginning that is suppressed


@pytest.mark.parametrize("ops", [NUMPY, keras.ops], ids=["numpy", "keras"])
def test_repetition_and_decay(ops):
    wanted = LOGITS.copy()
    for row, seen in zip(wanted, ((5, 6), (7, 8, 9)), strict=True):
        for token in seen:
            row[token] *= 2 if row[token] < 0 else 0.5
    np.testing.assert_allclose(apply(ops, repetition_penalty=2.0), wanted, rtol=1e-6)
    wanted = LOGITS.copy()
    wanted[:, END] += np.abs(wanted[:, END]) * (1.5**1 - 1)  # one token after the first
    np.testing.assert_allclose(apply(ops, exponential_decay_length_penalty=(1, 1.5)), wanted, rtol=1e-6)


def test_no_rule_changes_nothing():
    assert TokenRules(eos_token_id=(END,)).change_nothing and not TokenRules(min_length=3).change_nothing
    np.testing.assert_array_equal(apply(NUMPY), LOGITS)
