"""Checkpoint files: arrays and a JSON manifest in one file that is there whole or not at all.

The layout is safetensors' (https://github.com/huggingface/safetensors#format), so any reader of it opens one: eight
bytes with the header's length, the header as JSON, the arrays. The header's metadata holds the manifest and a SHA-256
of all else. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np

from tfxformer.files import replacing

SUFFIX = ".safetensors"
_NAME = re.compile(r"checkpoint-(\d{6})-(\d{9})\.safetensors")
_DTYPES = {
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "bool": "BOOL",
}
_MANIFEST, _SHA256, _NO_SHA256 = "tfxformer", "sha256", "0" * 64


class DamagedCheckpointError(ValueError):
    """A checkpoint file that is truncated or changed."""


def checkpoint_name(epoch: int, batch: int) -> str:
    """The file name of a position; names sort as positions do."""
    return f"checkpoint-{epoch:06d}-{batch:09d}{SUFFIX}"


def list_checkpoints(folder) -> list[Path]:
    """The checkpoints of a folder, the oldest first."""
    folder = Path(folder)
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def _plain(value):
    """What JSON takes, of numpy's values."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be written down as JSON.")


def write_checkpoint(path, arrays: dict, manifest: dict) -> None:
    """Writes a file, whole or not at all; see `files.replacing`.

    Args:
        path: the file; its folder is made.
        arrays: name -> numpy array.
        manifest: what JSON can hold.

    Raises:
        OSError: where it cannot be written; a file of that name from before is whole still.
    """
    header, offset = {}, 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    blocks = [_bytes(array) for array in arrays.values()]
    metadata = {_MANIFEST: json.dumps(manifest, default=_plain), _SHA256: _NO_SHA256}
    digest = hashlib.sha256(_header_bytes(header, metadata))
    for block in blocks:
        digest.update(block)
    with replacing(path) as part, part.open("wb") as file:
        file.write(_header_bytes(header, {**metadata, _SHA256: digest.hexdigest()}))
        for block in blocks:
            file.write(block)


def _bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array in C order, not copied where it is so."""
    return memoryview(np.ascontiguousarray(array).reshape(-1).view("uint8"))


def _header_bytes(header: dict, metadata: dict) -> bytes:
    content = json.dumps({"__metadata__": metadata, **header}).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


def read_checkpoint(path) -> tuple[dict, dict]:
    """(arrays, manifest) of a file that `write_checkpoint` wrote.

    Raises:
        DamagedCheckpointError: saying what is wrong.
        OSError: where it cannot be read.
    """
    path = Path(path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        metadata = header.pop("__metadata__")
        told, manifest = metadata[_SHA256], json.loads(metadata[_MANIFEST])
        begin = _header_bytes(header, {**metadata, _SHA256: _NO_SHA256})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{path} is damaged: its header cannot be read ({error!r}).") from error
    body = memoryview(content)[8 + length :]
    digest = hashlib.sha256(begin)
    digest.update(body)
    if digest.hexdigest() != told:
        raise DamagedCheckpointError(f"{path} is damaged: its SHA-256 is not that of its {len(content):,} bytes.")
    dtypes = {short: np.dtype(getattr(ml_dtypes, name, name)) for name, short in _DTYPES.items()}
    arrays = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        arrays[name] = np.frombuffer(body[first:last], dtypes[entry["dtype"]]).reshape(entry["shape"])
    return arrays, manifest
