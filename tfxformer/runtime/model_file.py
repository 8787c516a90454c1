"""Opens a .tflite file, or the one inside a .litertlm bundle, and checks it before LiteRT sees it."""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tfxformer.runtime.format import checksum, flatbuffer, metadata, structure
from tfxformer.text import Tokenizer

BUNDLE = b"LITERTLM"
_HEADER_END, _HEADER = 24, 32  # of a bundle: where the end of its header is written, and where the header begins
_TFLITE_SECTION = 3  # AnySectionDataType


class Place(NamedTuple):
    """A file on the disk, which may go or change while a runtime has it mapped.

    Attributes:
        path: absolute, as a text: it is looked up before every call.
        stamp: device and number of the file, its size and time of change; None where there is nothing.
    """

    path: str
    stamp: tuple[int, int, int, int] | None

    @classmethod
    def of(cls, path: str | Path) -> Place:
        """What is at a path now."""
        path = str(Path(path).absolute())
        return cls(path, _stamp(path))

    def is_there(self) -> bool:
        """Whether the path still names this file; a mapped one that was replaced as a whole stays what it is.

        Raises:
            ValueError: if it was written into, which changes what is mapped, or ends the process.
        """
        now = _stamp(self.path)
        if now == self.stamp:
            return True
        if now is not None and now[:2] == self.stamp[:2]:
            raise ValueError(f"{self.path} was overwritten after it was opened: open it again.")
        return False


def _stamp(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 (a Path takes longer)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class ModelFile:
    """A checked file.

    Attributes:
        path: `~` spelled out.
        whole: the bytes of the file, mapped.
        content: those of the .tflite file in it.
        bundled: bool, whether they are a part of a bundle.
        own: dict, our metadata entry, empty for foreign files.
        signatures: {name: flatbuffer.SignatureInfo}.
        place: of the whole file on the disk.
    """

    path: Path
    whole: mmap.mmap = field(repr=False)
    content: mmap.mmap | bytes = field(repr=False)
    bundled: bool
    own: dict
    signatures: dict[str, flatbuffer.SignatureInfo]
    place: Place

    @cached_property
    def model(self) -> flatbuffer.schema.ModelT:
        """The file unpacked, its buffers views of `content`."""
        return flatbuffer.read(self.content)

    @property
    def _archive(self):
        return io.BytesIO(self.content) if self.bundled else self.path

    def associated_files(self) -> dict[str, int]:
        """Sizes of the files that travel behind the model, by name."""
        with _naming(self.path):
            return metadata.associated_files(self._archive)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer inside; None where there is none.

        Raises:
            ValueError: naming the file, where it is damaged.
        """
        with _naming(self.path):
            found = metadata.associated_file(self._archive, metadata.TOKENIZER) if self.own else None
            if found is None:
                return None
            try:
                return Tokenizer.from_json(found.decode("utf-8"))
            except Exception as error:  # `tokenizers` raises Exception itself
                raise ValueError(f"its tokenizer cannot be read: {error}") from error


def open_file(path: str | Path) -> ModelFile:
    """Opens and checks a file.

    Raises:
        FileNotFoundError: there is no such file. OSError: it cannot be read. ValueError: it is no .tflite file and no
            bundle of one, or it is damaged; the message names it and the way out.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name the .tflite file in it.")
    place = Place.of(path)
    if place.stamp is None:
        raise FileNotFoundError(f"There is no file {str(path)!r}: {_instead_of(path)}.")
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise ValueError(f"{path} is empty: no .tflite file. Export or download it again.")
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with _naming(path):
        signed = checksum.check(whole)
        bundled = whole[: len(BUNDLE)] == BUNDLE
        content = whole[slice(*_tflite_section(whole))] if bundled else whole
        # What we wrote ourselves is as we wrote it; of others' files all is looked at, before a runtime trusts it.
        model = flatbuffer.outline(content) if signed else flatbuffer.read(content)
        own = _own_entry(model)
        if metadata.CHECKSUM in own and not signed:
            raise ValueError("its sha256 is gone")
        return ModelFile(path, whole, content, bundled, own, flatbuffer.signatures(model), place)


def _instead_of(path: Path) -> str:
    """What to open in place of a file that is not there."""
    others = sorted(other.name for other in path.parent.glob("*") if other.suffix in (".tflite", ".litertlm"))
    if others:
        return f"its folder has {', '.join(others[:5])}{' and others' if len(others) > 5 else ''}"
    return "name a .tflite file, as export.export_litert writes them, or a .litertlm bundle"


@contextlib.contextmanager
def _naming(path: Path):
    """Says of which file an error is, and the way out."""
    try:
        yield
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{path} cannot be opened: {reason}. Export or download it again.") from error


def _is_list_of(kind):
    return lambda value: value is None or (isinstance(value, list) and all(isinstance(item, kind) for item in value))


def _is_dict_of(kind):
    return lambda value: (
        value is None or (isinstance(value, dict) and all(isinstance(item, kind) for item in value.values()))
    )


# The keys of our entry whose values are computed with, and what each must be.
_KINDS = {
    "labels": _is_list_of(object),
    "limits": _is_dict_of(int),
    "signatures": _is_dict_of(int | None),
    "stop_ids": _is_list_of(int),
    "generation_config": _is_dict_of(object),
    "decoder_start_token_id": lambda value: value is None or isinstance(value, int),
    "sources": _is_dict_of(str | None),
    "targets": _is_dict_of(list),
}


def _own_entry(model) -> dict:
    """Our metadata entry, {} where there is none."""
    try:
        found = json.loads(flatbuffer.get_metadata(model, metadata.OWN_ENTRY) or b"{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its entry {metadata.OWN_ENTRY!r} is damaged: {error}") from error
    if not isinstance(found, dict) or not all(_KINDS[key](found[key]) for key in _KINDS.keys() & found.keys()):
        raise ValueError(f"its entry {metadata.OWN_ENTRY!r} is damaged")
    return found


def _tflite_section(content) -> tuple[int, int]:
    """Where the .tflite file of a bundle lies; see schema/core/litertlm_header_schema.fbs of LiteRT-LM."""
    header = content[_HEADER : int.from_bytes(content[_HEADER_END:_HEADER], "little")]
    sections = structure.Table.root(header).table(1)
    for section in () if sections is None else sections.tables(0):
        if section.byte(3) == _TFLITE_SECTION:
            begin, end = section.long(1), section.long(2)
            if not _HEADER <= begin < end <= len(content):
                raise ValueError("the part with its model ends behind its end")
            return begin, end
    raise ValueError("it is a bundle without a .tflite file")
