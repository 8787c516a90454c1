"""Modules of SWORD: a small one written by hand in the form of its library, and the real Bible in two languages."""

import shutil
import struct
import zlib

import pytest

from tfxformer import samples
from tfxformer.samples.formats import sword

OLD = [
    "",
    '<milestone type="x-importer"/>',
    '<div canonical="true" osisID="Gen" sID="gen1" type="book"/> <title type="main">Genesis</title>',
    '<chapter osisID="Gen.1" sID="Gen.1"/>',
    '<w lemma="strong:H7225">In the <i>beginning</i></w><note n="a">or: at <b>first</b></note> &amp;\n so on. ',
    "",
    'Last verse.<title/> <div eID="gen1" osisID="Gen" type="book"/>',
    '<div canonical="true" osisID="Exod" sID="gen2" type="book"/>',
    "Ñandú",
]
NEW = ["", '<div osisID="Matt" sID="gen3" type="book"/>', "<title>A heading</title>The book"]


def write_module(folder, testament, slots, per_block=4):
    """The three files, `per_block` slots in each compressed block."""
    folder.mkdir(exist_ok=True)
    places, verses, packed = b"", b"", b""
    for block, begin in enumerate(range(0, len(slots), per_block)):
        content = b""
        for slot in slots[begin : begin + per_block]:
            verses += struct.pack("<IIH", block, len(content), len(slot.encode()))
            content += slot.encode()
        squeezed = zlib.compress(content)
        places += struct.pack("<III", len(packed), len(squeezed), len(content))
        packed += squeezed
    for letter, data in zip("svz", (places, verses, packed), strict=True):
        (folder / f"{testament}.bz{letter}").write_bytes(data)


@pytest.fixture
def module(tmp_path):
    write_module(tmp_path, "ot", OLD)
    write_module(tmp_path, "nt", NEW)
    return tmp_path


def test_books_hold_their_verses_without_markup(module):
    assert sword.read_books(module) == {
        "Gen": ["", "", "In the beginning & so on.", "", "Last verse."],
        "Exod": ["", "Ñandú"],
        "Matt": ["", "The book"],
    }


def test_what_is_cut_or_no_module_is_refused(module):
    for name, message in (("ot.bzv", "cut"), ("nt.bzz", "not whole")):
        content = (module / name).read_bytes()
        (module / name).write_bytes(content[:-3])
        with pytest.raises(ValueError, match=message):
            sword.read_books(module)
        (module / name).write_bytes(content)
    write_module(module, "ot", ["text"])
    write_module(module, "nt", ["text"])
    with pytest.raises(ValueError, match="no book"):
        sword.read_books(module)


@pytest.mark.samples
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="Debian's apt-get fetches it")
def test_the_bible_has_its_verses_in_both_languages():
    books = samples.bible_en_es()
    assert len(books) == 66
    assert [len(books[name]) for name in ("Gen", "Ps", "Obad", "Jude", "Rev")] == [1533, 2461, 21, 25, 404]
    assert sum(map(len, books.values())) == 31_084
    assert books["Gen"][0] == (
        "In the beginning God created the heaven and the earth.",
        "EN el principio crió Dios los cielos y la tierra.",
    )
    english, spanish = books["John"][books["John"].index(next(p for p in books["John"] if p[0] == "Jesus wept."))]
    assert (english, spanish) == ("Jesus wept.", "Y lloró Jesús.")
    assert not [text for pairs in books.values() for pair in pairs for text in pair if set(text) & set("<>&")]
