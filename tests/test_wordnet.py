"""WordNet's files: lines in the form of its manual, written by hand, and the real ones."""

import pytest

from tfxformer import samples
from tfxformer.samples.formats import wordnet

NOUN = """  1 This is the licence.
00000100 05 n 02 guide_dog 0 leader 0 002 @ 00000200 n 0000 #m 00000300 n 0101 | a dog of the Pack; "a guide dog"
00000200 05 n 01 dog 0 001 ~ 00000100 n 0000 | an animal
00000300 14 n 01 pack 0 000 | a group of animals
00000400 05 n 01 doghouse 0 002 @ 00000200 n 0000 @ 00000300 n 0000 | a house for packing dogs
"""
ADJ = """00000100 00 s 01 big(a) 0 002 & 00000200 a 0000 = 00000200 a 0000 | above average, large in size
00000200 00 a 01 large 0 001 ! 00000300 a 0101 | above average; not little
00000300 00 a 01 little 0 000 | below average
"""


@pytest.fixture
def folder(tmp_path):
    for name, content in {"noun": NOUN, "adj": ADJ, "verb": "", "adv": ""}.items():
        (tmp_path / f"data.{name}").write_text(content, encoding="utf-8")
    return tmp_path


def test_synsets(folder):
    found = wordnet.read_synsets(folder)
    assert list(found) == [("n", 100), ("n", 200), ("n", 300), ("n", 400), ("a", 100), ("a", 200), ("a", 300)]
    assert found["n", 100] == wordnet.Synset(
        ["guide dog", "leader"],
        [("hypernym", ("n", 200)), ("member_of", ("n", 300))],
        "a dog of the Pack",
    )
    assert found["a", 100].words == ["big"]


def test_relations_to_words_of_the_gloss(folder):
    """Whole words alone, of any case; none of two relations, as that of big to large."""
    rows = list(wordnet.relations(wordnet.read_synsets(folder)))
    assert [(row.text, row.text[slice(*row.head)], row.text[slice(*row.tail)], row.label) for row in rows] == [
        ("guide dog: a dog of the Pack", "guide dog", "dog", "hypernym"),
        ("guide dog: a dog of the Pack", "guide dog", "Pack", "member_of"),
        ("large: above average; not little", "large", "little", "antonym"),
    ]
    assert rows[0].tail == (13, 16)  # behind the colon, and not in the word itself


@pytest.mark.samples
def test_the_real_one():
    rows = samples.wordnet_relations()
    assert len(rows) == 82_410
    labels = [row.label for row in rows]
    assert labels.count("hypernym") == 48_494 and labels.count("antonym") == 672
    assert all(row.head[1] < row.tail[0] < row.tail[1] <= len(row.text) for row in rows)


def test_synonyms_are_the_other_words_of_a_synset(folder):
    with (folder / "data.verb").open("a", encoding="utf-8") as file:
        file.write("00000100 30 v 03 Grow 0 get_big 0 expand 0 000 | become larger\n")
    assert wordnet.synonyms(wordnet.read_synsets(folder)) == {"expand": ["grow"], "grow": ["expand"]}
