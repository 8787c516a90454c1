"""Files and folders that appear whole or not at all: one way for the package.

What is written goes into a private folder of a random name beside its place (`.NAME.HEX.tfxformer-tmp`, mode 0700,
locked while its writer lives), is brought to the disk, and takes its place in one step. A reader finds the old state or
the new one, whatever happens: a full disk, an interrupt, a kill, a power cut.

- A file is renamed onto its place (`replacing`).
- A folder that exists is exchanged with the new one (Linux' renameat2). Where that cannot be (another system, a mount
  point, the current directory, a parent that may not be written) the complete new files are moved into the folder one
  by one from a `.NAME.HEX.tfxformer-commit` folder inside it; `recover`, which our readers call first, finishes what a
  kill has interrupted. Until then other programs find files missing, never an old one of ours beside a new one.
- What killed writers have left is removed by the next writer in the same folder; the lock spares those that live.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fnmatch
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path, PurePath

try:
    import fcntl
except ImportError:  # Windows has no such locks: what is left there is removed by its age
    fcntl = None

_TEMPORARY, _COMMITTED = ".tfxformer-tmp", ".tfxformer-commit"
_OF_OURS = re.compile(r"\..*\.[0-9a-f]{16}\.tfxformer-(tmp|commit)", re.DOTALL)
_UNLOCKED_AGE = 86_400  # seconds after which a leftover is removed where no lock tells whether its writer lives
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of <fcntl.h> and <linux/fs.h>
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What systems and disks say of an exchange of folders, or a second name of a file, that they do not have.
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV, errno.EBUSY, errno.EPERM, errno.EACCES}
# The new folders that are being filled here: (folder, patterns of ours), the outermost first.
_unfinished: ContextVar[tuple[tuple[Path, list[str]], ...]] = ContextVar("unfinished", default=())


@contextlib.contextmanager
def replacing(path) -> Iterator[Path]:
    """Yields a path to write a file to; when the block ends well, that file takes the place of `path` in one step.

    The file has the same name, in a private folder on the same disk. Missing parent folders are made. A symbolic link
    at `path` is replaced, never written through.

    Raises:
        OSError: where it cannot be written, naming `path` and the reason; an older file stays.
    """
    path = Path(path).expanduser()
    if _outer(path) is not None:  # nobody reads that folder yet
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with _naming(path):
        _check_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path.parent, path.name) as private, _naming(path, private / path.name):
        part = private / path.name
        yield part
        _sync(part)
        part.replace(path)
        _sync(path.parent)


def write_bytes(path, content: bytes) -> None:
    """Writes a file, whole or not at all; see `replacing`."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(path, text: str) -> None:
    """Writes a text as UTF-8, its line ends as they are, whole or not at all; see `replacing`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path, content, *, indent: int = 1, sort_keys: bool = False) -> None:
    """Writes JSON, whole or not at all; see `replacing`.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
    """
    try:
        text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path} was not written: {error}.") from error
    write_text(path, text + "\n")


def check_writable(path) -> None:
    """Fails before the long work where a file could not be written; makes its folder.

    Raises:
        OSError: naming the path and what is wrong with it.
    """
    path = Path(path).expanduser()
    with _naming(path):
        _check_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if _outer(path) is None:
            with _temporary(path.parent, path.name):
                return


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder; name the file to write", str(path))
    if os.path.lexists(path) and not stat.S_ISREG(mode := os.lstat(path).st_mode) and not stat.S_ISLNK(mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))  # a device, a pipe


@contextlib.contextmanager
def replacing_folder(folder, ours: Sequence[str] = ()) -> Iterator[Path]:
    """Yields an empty folder to fill; when the block ends well, it takes the place of `folder` in one step.

    Files of other names that stand in `folder` stay (as links to the same bytes), but for those that match `ours`:
    what an older state left. A symbolic link to a folder stays one. Inside the block, `replacing` and
    `replacing_folder` below the yielded folder write there directly, so that writers can be put together.

    Args:
        folder: made where it is not there.
        ours: patterns (fnmatch) of paths in the folder, of files or folders.

    Raises:
        OSError: where it cannot be written, naming `folder` and the reason; an older folder stays as it was.
    """
    folder = Path(folder).expanduser()
    if (outer := _outer(folder)) is not None:
        inside = folder.absolute().relative_to(outer[0])
        outer[1].extend((inside / pattern).as_posix() for pattern in ours)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    place = folder.resolve()
    if place.exists() and not place.is_dir():
        raise NotADirectoryError(f"{folder} is a file: name a folder to write into.")
    with _naming(folder):
        place.parent.mkdir(parents=True, exist_ok=True)
        recover(place)
    with _temporary(_private_place(place), place.name) as private, _naming(folder, private / place.name):
        new = private / place.name
        new.mkdir()
        patterns = list(ours)
        token = _unfinished.set((*_unfinished.get(), (new, patterns)))
        try:
            yield new
        finally:
            _unfinished.reset(token)
        for path in _files(new):
            if not (new / path).is_symlink():
                _sync(new / path)
        _put(new, place, patterns)


def recover(folder) -> None:
    """Finishes what a killed writer had begun to put into a folder; readers call it before they read.

    Waits for a writer that is alive. Costs one listing of the folder where there is nothing to do.

    Raises:
        OSError: where files must be moved and cannot be.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir() or _outer(folder) is not None:
        return
    for path in sorted(folder.iterdir()):
        if path.suffix == _COMMITTED and _OF_OURS.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError), _lock(path, wait=True):  # its writer was quicker
                _move_in(path, folder)


def _outer(path: Path) -> tuple[Path, list[str]] | None:
    """The unfinished folder that a path lies in."""
    return next((entry for entry in _unfinished.get() if path.absolute().is_relative_to(entry[0])), None)


def _put(new: Path, place: Path, ours: list[str]) -> None:
    """Gives the complete folder `new` the name `place`."""
    for _ in range(100):  # others may make or remove the folder at the same time
        if not place.exists():
            _sync_folders(new)
            try:
                new.rename(place)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):  # another process was quicker
                    raise
                continue
        if new.parent.parent == place or _holds_current_folder(place) or _holds_mounts(place):
            _commit(new, place, ours)
            break
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(place, new)
            _carry(place, new, ours)
            _sync_folders(new)
            if not _exchange(new, place):
                _commit(new, place, ours)
            else:
                _carry(new, place, ours)  # what others have written since
            break
    else:
        raise OSError(errno.EBUSY, "another process keeps making and removing it", str(place))
    _sync(place.parent)


def _carry(old: Path, new: Path, ours: list[str]) -> None:
    """Links the files of `old` that have no namesake in `new` into it, but for `ours`."""
    for path in _files(old):
        if _matches(path, ours) or os.path.lexists(new / path):
            continue
        with contextlib.suppress(FileExistsError, NotADirectoryError):  # a folder where the new one has a file
            for parent in reversed(path.parents[:-1]):
                if not (new / parent).is_dir():
                    (new / parent).mkdir()
                    shutil.copymode(old / parent, new / parent)
            try:
                os.link(old / path, new / path, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                shutil.copy2(old / path, new / path, follow_symlinks=False)


def _matches(path: PurePath, patterns: Sequence[str]) -> bool:
    names = [path.as_posix(), *(parent.as_posix() for parent in path.parents)]
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _files(folder: Path) -> list[PurePath]:
    """What is in a folder and is no folder, at any depth, as sorted relative paths; without unfinished writing."""
    found = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = [name for name in folders if name not in links and not _OF_OURS.fullmatch(name)]
        found += [PurePath(parent, name).relative_to(folder) for name in (*files, *links)]
    return sorted(found)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps the names of two folders in one step; False where the system or the disk cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux, or a C library from before 2018
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _commit(new: Path, place: Path, ours: list[str]) -> None:
    """Moves the complete files of `new` into the folder `place`, one by one, so that `recover` can finish it."""
    stale = [path.as_posix() for path in _files(place) if _matches(path, ours) and not os.path.lexists(new / path)]
    listed = new.parent / "stale.json"
    listed.write_text(json.dumps(stale), encoding="utf-8")
    _sync(listed)
    _sync_folders(new.parent)
    committed = place / (new.parent.name.removesuffix(_TEMPORARY) + _COMMITTED)
    new.parent.rename(committed)  # from here on the new state counts
    _sync(place)
    _move_in(committed, place)


def _move_in(committed: Path, place: Path) -> None:
    """The second half of `_commit`, from whatever point on."""
    listed = committed / "stale.json"
    if listed.is_file():  # else all is done but the cleaning
        (new,) = (path for path in committed.iterdir() if path.is_dir())
        files = _files(new)
        # First away with the old ones: other readers find nothing rather than a mixture.
        for path in (*files, *json.loads(listed.read_text(encoding="utf-8"))):
            if (place / path).is_dir() and not (place / path).is_symlink():
                shutil.rmtree(place / path)
            elif os.path.lexists(place / path):
                (place / path).unlink()
        for path in reversed(files):  # config.json after model.safetensors
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).replace(place / path)
        _sync_folders(place)
        listed.unlink()
    shutil.rmtree(committed, ignore_errors=True)


def _holds_current_folder(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # it has been removed
        return Path.cwd().is_relative_to(folder)
    return False


def _holds_mounts(folder: Path) -> bool:
    """Whether a folder is a mount point, or has one inside: renaming would fail, or take that along."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.is_file():
        return folder.is_mount()
    points = (line.split()[4] for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    plain = (re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point) for point in points)
    return any(Path(point).is_relative_to(folder) for point in plain)


@contextlib.contextmanager
def _temporary(parent: Path, name: str) -> Iterator[Path]:
    """A private, locked folder of a random name in `parent`, removed at the end; those that the dead left, too."""
    short = name if len(os.fsencode(name)) <= 200 else name[:40]  # file names end at 255 bytes
    with contextlib.ExitStack() as stack:
        with _naming(parent / name):
            remove_leftovers(parent)
            while True:
                private = parent / f".{short}.{secrets.token_hex(8)}{_TEMPORARY}"
                private.mkdir(0o700)  # exclusive: a link of that name would be an error
                try:
                    stack.enter_context(_lock(private, wait=True))
                    break
                except FileNotFoundError:  # another writer took it for a leftover before it was locked
                    continue
        stack.callback(shutil.rmtree, private, ignore_errors=True)
        yield private


def _private_place(folder: Path) -> Path:
    """Where the temporary of a folder belongs: beside it, or inside where it cannot be moved from there."""
    movable = not folder.is_dir() or (os.access(folder.parent, os.W_OK) and not _holds_mounts(folder))
    return folder.parent if movable else folder


def remove_leftovers(parent: Path) -> None:
    """Removes the temporaries in a folder whose writers are dead; every writer does it."""
    for path in Path(parent).iterdir() if Path(parent).is_dir() else ():
        if path.suffix != _TEMPORARY or not _OF_OURS.fullmatch(path.name) or path.is_symlink():
            continue
        with contextlib.suppress(OSError), _lock(path, wait=False) as held:  # it lives, or is gone already
            if held or time.time() - path.stat().st_mtime > _UNLOCKED_AGE:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Holds the lock of a folder; yields False where there are no locks.

    Raises:
        OSError: where the folder is gone, or, unless `wait`, where another has its lock.
    """
    if fcntl is None:
        folder.stat()
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise
            held = False  # some network disks
        folder.stat()  # its writer may have removed it while we waited
        yield held
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk (Windows opens no folders)."""
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folders(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):
        _sync(Path(parent))


@contextlib.contextmanager
def _naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Lets an OSError name `path`: any, or those of a full disk and those that name `temporary`."""
    try:
        yield
    except OSError as error:
        told, said = f"{path} could not be written: ", str(error)
        hidden = re.search(r"errno = (\d+)", said)  # of HDF5, whose OSError has none
        code = error.errno or (int(hidden[1]) if hidden else None)
        of_writing = temporary is None or code in _FULL or str(temporary) in said
        if told in said or code is None or not of_writing:
            raise
        reason = error.strerror if error.errno else os.strerror(code)
        raise OSError(code, told + reason) from error
