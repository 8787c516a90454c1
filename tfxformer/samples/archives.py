"""The wanted members of an archive, within bounds: plain files, below one folder, of a size that was agreed on."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from tfxformer.samples.catalogue import Sample

MOST_BYTES, MOST_MEMBERS = 1_000_000_000, 100_000  # of all members of an archive together
Member = tuple[str, int, Callable[[], bytes]]  # its name, its size, what reads it


def unpack(archive: Path, sample: Sample, folder: Path) -> None:
    """Writes the wanted members below `folder`; links and devices are never followed, never made.

    Raises:
        ValueError: for a member whose path would leave the folder, for none at all, and beyond the bounds.
    """
    folder.mkdir(exist_ok=True)
    count, members, left = 0, 0, MOST_BYTES
    for name, size, read in _members(archive, sample):
        members, left = members + 1, left - size
        if members > MOST_MEMBERS or left < 0:
            raise ValueError(
                f"{archive.name} holds more than {MOST_MEMBERS:,} members or {MOST_BYTES:,} bytes; nothing was kept."
            )
        if not name.startswith(sample.root + "/") or not name.endswith(sample.suffixes):
            continue
        relative = PurePosixPath(name[len(sample.root) + 1 :])
        if relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name:
            raise ValueError(f"{archive.name}: member {name!r} would leave its folder; nothing was kept.")
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read())
        count += 1
    if not count:
        raise ValueError(f"{archive.name} holds no file under {sample.root!r} ending in {sample.suffixes}.")


def _members(archive: Path, sample: Sample) -> Iterator[Member]:
    """The plain files in an archive (of the inner one where the sample names one)."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if not entry.is_dir():
                    yield entry.filename, entry.file_size, _reader(opened.open, entry, entry.file_size)
        return
    if archive.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE) as unpacked,
            tarfile.open(fileobj=unpacked.stdout, mode="r|") as opened,
        ):
            yield from ((name.removeprefix("./"), *member) for name, *member in _tar_files(opened))
        return
    with tarfile.open(archive) as opened:
        if sample.inner is None:
            yield from _tar_files(opened)
        else:
            with tarfile.open(fileobj=opened.extractfile(sample.inner)) as nested:
                yield from _tar_files(nested)


def _tar_files(opened: tarfile.TarFile) -> Iterator[Member]:
    for entry in opened:
        if entry.isreg():
            yield entry.name, entry.size, _reader(opened.extractfile, entry, entry.size)


def _reader(open_member: Callable, entry, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with open_member(entry) as file:
            return file.read(size)  # never more than was counted

    return read
