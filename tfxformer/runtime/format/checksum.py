"""The sha256 that our files carry of themselves, checked before anything else in a file is believed.

A file holds `tfxformer-sha256:` and 64 hexadecimal digits, the digest of all its bytes with zeros in place of the
digits: .tflite files in our metadata entry, .litertlm bundles in their header. It reveals damage; it is no signature.
"""

from __future__ import annotations

import hashlib

MARK = b"tfxformer-sha256:"
_DIGITS = b"0" * 64
PLACEHOLDER = (MARK + _DIGITS).decode("ascii")


def _digest(content, place: int) -> bytes:
    with memoryview(content) as view:
        found = hashlib.sha256(view[:place])
        found.update(_DIGITS)
        found.update(view[place + len(_DIGITS) :])
    return found.hexdigest().encode("ascii")


def sign(content: bytearray) -> None:
    """Writes a file's digest into the place that `PLACEHOLDER` keeps, the first one of its kind in the file.

    Raises:
        ValueError: if there is no such place.
    """
    place = content.find(MARK) + len(MARK)
    if content[place : place + len(_DIGITS)] != _DIGITS:
        raise ValueError(f"The file has no place for its digest: no name in it may hold {MARK.decode()!r}.")
    content[place : place + len(_DIGITS)] = _digest(content, place)


def check(content) -> bool:
    """Whether a file carries its digest: bytes, or a mapped file, which is not copied.

    Raises:
        ValueError: if the digest is not that of the content.
    """
    place = content.find(MARK)
    if place < 0:
        return False
    place += len(MARK)
    if bytes(content[place : place + len(_DIGITS)]) != _digest(content, place):
        raise ValueError("its content is not what its sha256 was made of")
    return True
