"""Packing: every token of every document is a target exactly once but its first, in order, seeing its document only."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.data.targets.packing import Blocks, join, pack, random_windows, strided

DOCUMENTS = st.lists(st.lists(st.integers(1, 99), max_size=23), min_size=1, max_size=12)
PAIRED = DOCUMENTS.filter(lambda rows: any(len(row) > 1 for row in rows))


def pieces(blocks: Blocks):
    """(row, number, ids, targets, weights) of each document of each block, as lists."""
    for row, numbers in enumerate(blocks.padding_mask):
        for number in sorted({*numbers.tolist()} - {0}):
            where = numbers == number
            yield row, number, *(array[row][where].tolist() for array in (blocks[0], blocks[2], blocks[3]))


def check_form(blocks: Blocks, length: int, padding_id: int):
    assert {array.shape for array in blocks} == {(len(blocks.token_ids), length)}
    assert [array.dtype for array in blocks] == [np.int32, np.int32, np.int32, np.float32]
    padding = blocks.padding_mask == 0
    assert (blocks.token_ids[padding] == padding_id).all() and (blocks.targets[padding] == padding_id).all()
    assert not blocks.weights[padding].any()
    for numbers in blocks.padding_mask:
        used = numbers[numbers > 0]
        assert used[0] == 1 and np.isin(np.diff(used), (0, 1)).all()  # 1, 1, 2, 2, 2, 3, ...
        assert not numbers[len(used) :].any()  # padding on the right only


def restored(blocks: Blocks):
    """The documents again: a piece begins with the token that the piece before it predicted last, or is a new one."""
    found = []
    for _, _, ids, targets, _ in pieces(blocks):
        assert ids[1:] == targets[:-1]
        found.append((ids[0], targets))
    return found


@settings(max_examples=60, deadline=None)
@given(PAIRED, st.integers(1, 17))
def test_nothing_is_lost_where_documents_go_on_in_the_next_block(rows, length):
    blocks = pack(join(rows), length, padding_id=7)
    check_form(blocks, length, 7)
    assert (blocks.padding_mask[:-1] > 0).all()  # full but for the last
    wanted = [row for row in rows if len(row) > 1]
    found = iter(restored(blocks))
    for row in wanted:  # a second way to say what packing is: walk the pieces as the documents come
        first, rest = row[0], row[1:]
        while rest:
            begin, targets = next(found)
            assert begin == first and targets == rest[: len(targets)]
            first, rest = targets[-1], rest[len(targets) :]
    assert next(found, None) is None
    assert blocks.weights.sum() == sum(len(row) - 1 for row in wanted)


@settings(max_examples=60, deadline=None)
@given(PAIRED)
def test_whole_documents_stay_whole(rows):
    length = 22
    blocks = pack(join(rows), length, whole=True)
    check_form(blocks, length, 0)
    assert restored(blocks) == [(row[0], row[1:]) for row in rows if len(row) > 1]
    last = {row: (numbers > 0).sum() for row, numbers in enumerate(blocks.padding_mask)}
    for row, number, ids, _, _ in pieces(blocks):
        if row and number == 1:
            assert last[row - 1] + len(ids) > length  # it had no room in the block before


@settings(max_examples=60, deadline=None)
@given(PAIRED, st.integers(1, 9), st.data())
def test_what_is_not_wanted_has_no_weight(rows, length, data):
    wanted = [data.draw(st.lists(st.booleans(), min_size=len(row), max_size=len(row))) for row in rows]
    blocks = pack(join(rows, wanted), length)
    found = [weight for piece in pieces(blocks) for weight in piece[4]]
    assert found == [float(flag) for flags in wanted for flag in flags[1:]]


@settings(max_examples=60, deadline=None)
@given(PAIRED, st.integers(1, 9), st.data())
def test_windows_count_each_token_once_with_its_context(rows, length, data):
    stride = data.draw(st.integers(1, length))
    windows, sources = strided(join(rows), length, stride)
    expected, documents = [], []  # by a loop over begins, in which the tokens already counted are remembered
    for index, row in enumerate(rows):
        counted = 0
        for begin in range(0, max(1, len(row)), stride):
            end = min(begin + length, len(row) - 1)
            if begin and end <= counted:
                break
            window = row[begin : end + 1]
            expected.append((window, [begin + i > counted for i in range(len(window))]))
            documents.append(index)
            counted = end
    ends = np.cumsum(windows.lengths)
    found = [
        (windows.ids[end - n : end].tolist(), windows.wanted[end - n : end].tolist())
        for n, end in zip(windows.lengths, ends, strict=True)
    ]
    assert found == expected and sources.tolist() == documents
    blocks = pack(windows, length, whole=True)
    assert sorted(blocks.targets[blocks.weights == 1]) == sorted(token for row in rows for token in row[1:])


def test_an_example_by_hand():
    blocks = pack(join([[1, 2, 3], [4], [], [5, 6, 7, 8]]), 4)
    assert blocks.token_ids.tolist() == [[1, 2, 5, 6], [7, 0, 0, 0]]
    assert blocks.targets.tolist() == [[2, 3, 6, 7], [8, 0, 0, 0]]
    assert blocks.padding_mask.tolist() == [[1, 1, 2, 2], [1, 0, 0, 0]]
    assert blocks.weights.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert pack(join([[1, 2, 3], [5, 6, 7, 8]]), 4, whole=True).token_ids.tolist() == [[1, 2, 0, 0], [5, 6, 7, 0]]


def test_random_windows():
    text = np.arange(50)
    blocks = random_windows(text, 500, 8, seed=1)
    check_form(blocks, 8, 0)
    assert (np.diff(blocks.token_ids, axis=1) == 1).all() and (blocks.targets == blocks.token_ids + 1).all()
    assert {*blocks.token_ids[:, 0].tolist()} == set(range(42))  # the last window ends with the last token
    np.testing.assert_array_equal(random_windows(text, 500, 8, seed=1).token_ids, blocks.token_ids)
    assert (random_windows(text, 500, 8, seed=2).token_ids != blocks.token_ids).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack(join([[1], []]), 4), "nothing to predict"),
        (lambda: pack(join([]), 4), "nothing to predict"),
        (lambda: pack(join([[1, 2], [1] * 6]), 4, whole=True), "Document 1 has 6 tokens; a block of 4 holds .* 5"),
        (lambda: strided(join([[1, 2]]), 4, 0), "stride=0 must be 1 to 4"),
        (lambda: strided(join([[1, 2]]), 4, 5), "stride=5 must be 1 to 4"),
        (lambda: random_windows([1, 2, 3, 4], 1, 4), "4 tokens has no window of 4"),
    ],
)
def test_what_cannot_be_packed(call, message):
    with pytest.raises(ValueError, match=message):
        call()
