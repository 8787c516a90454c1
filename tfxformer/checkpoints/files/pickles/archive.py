"""The zip archives of torch.save: where their pickle and their storages lie, every place checked against the file.

Nothing is unpacked: torch stores entries as they are, and a compressed one is refused.
Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, and `caffe2/serialize/inline_container.h` of torch.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass

from tfxformer.checkpoints.files.pickles.values import Unknown

MAGIC = b"PK\x03\x04"
MOST_PICKLE_BYTES = 64_000_000
MOST_DIRECTORY_BYTES = 16_000_000  # the list of entries, of some 80 bytes each
_PICKLE, _SCRIPT = "/data.pkl", "/constants.pkl"
_END, _END_SIZE, _END_COMMENT = b"PK\x05\x06", 22, 1 << 16
_END64 = struct.Struct("<4sQ2H2I4Q")  # the larger twin of the end, before its locator of 20 bytes
_LOCATOR_SIZE = 20
_LOCAL = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1


@dataclass(frozen=True)
class Archive:
    """Where things lie.

    Attributes:
        pickle: (begin, end) of the pickle.
        storages: key -> (begin, end).
    """

    pickle: tuple[int, int]
    storages: dict[str, tuple[int, int]]


def read_archive(file, data) -> Archive:
    """The places of an archive.

    Args:
        file: open, binary.
        data: its bytes, mapped.

    Raises:
        Unknown: for what is no archive of torch.save, or has entries that lie.
    """
    _check_directory(data)
    try:
        with zipfile.ZipFile(file) as opened:
            entries = opened.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, OverflowError, struct.error) as error:
        raise Unknown(f"it is no whole zip archive ({error}; truncated?)") from error
    if any(entry.filename.endswith(_SCRIPT) for entry in entries):
        raise Unknown("it is a TorchScript archive, a model with its code")
    places = _places(entries, data)
    roots = [name.removesuffix(_PICKLE) for name in places if name.endswith(_PICKLE) and name.count("/") == 1]
    if len(roots) != 1:
        raise Unknown(f"it is a zip archive with {len(roots)} data.pkl")
    root = roots[0] + "/"
    _check_order(root, places, data)
    begin, end = places[root + "data.pkl"]
    if end - begin > MOST_PICKLE_BYTES:
        raise Unknown(f"its data.pkl has {end - begin} bytes, more than {MOST_PICKLE_BYTES}")
    start = root + "data/"
    return Archive(
        (begin, end), {name.removeprefix(start): place for name, place in places.items() if name.startswith(start)}
    )


def _check_directory(data) -> None:
    """Refuses a list of entries that would take a lot of memory; `zipfile` reads it whole before anybody can ask."""
    end = data.rfind(_END, max(0, len(data) - _END_SIZE - _END_COMMENT))
    if end < 0 or end + _END_SIZE > len(data):
        raise Unknown("it is no whole zip archive (truncated?)")
    (size,) = struct.unpack_from("<I", data, end + 12)
    twin = end - _LOCATOR_SIZE - _END64.size
    if twin >= 0 and data[twin : twin + 4] == b"PK\x06\x06":
        size = max(size if size < 0xFFFFFFFF else 0, _END64.unpack_from(data, twin)[8])
    if size > min(MOST_DIRECTORY_BYTES, len(data)):
        raise Unknown(f"its list of entries has {size} bytes, the file {len(data)} (limit {MOST_DIRECTORY_BYTES})")


def _places(entries, data) -> dict[str, tuple[int, int]]:
    """Name -> (begin, end) of each entry's bytes, none of which overlap."""
    places: dict[str, tuple[int, int]] = {}
    spans = []
    for entry in entries:
        name = entry.orig_filename
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/") or ":" in name:
            raise Unknown(f"its archive has an entry with the path {name[:80]!r}")
        if name in places:
            raise Unknown(f"its archive has the entry {name[:80]!r} twice")
        if entry.flag_bits & _ENCRYPTED:
            raise Unknown(f"the entry {name[:80]!r} is encrypted")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise Unknown(f"the entry {name[:80]!r} is compressed, which torch.save does not do")
        places[name] = _place(entry, data)
        spans.append((entry.header_offset, places[name][1], name))
    due = 0
    for begin, end, name in sorted(spans):
        if begin < due:
            raise Unknown(f"the entry {name[:80]!r} lies over another one")
        due = end
    return places


def _place(entry, data) -> tuple[int, int]:
    """Where an entry's bytes lie, by the header before them."""
    name, begin = entry.orig_filename, entry.header_offset
    if not 0 <= begin <= len(data) - _LOCAL.size:
        raise Unknown(f"the entry {name[:80]!r} begins at {begin} of {len(data)} bytes")
    signature, _, _, method, *_, name_bytes, extra_bytes = _LOCAL.unpack_from(data, begin)
    begin += _LOCAL.size
    written = data[begin : begin + name_bytes]
    if signature != MAGIC or method != zipfile.ZIP_STORED or written not in (name.encode(), _cp437(name)):
        raise Unknown(f"the entry {name[:80]!r} has another header where it lies")
    begin += name_bytes + extra_bytes
    end = begin + entry.file_size
    if end > len(data):
        raise Unknown(f"the entry {name[:80]!r} ends at {end} of {len(data)} bytes (truncated?)")
    return begin, end


def _cp437(name: str) -> bytes:
    """The name in the alphabet that zip has for those not marked as UTF-8."""
    return name.encode("cp437", "replace")


def _check_order(root: str, places, data) -> None:
    if f"{root}byteorder" in places:
        begin, end = places[f"{root}byteorder"]
        order = data[begin : min(end, begin + 16)]
        if order != b"little":
            raise Unknown(f"its numbers have the byte order {order!r}, not b'little'")
