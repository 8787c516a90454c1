"""What is inside a .tflite file, alone or in a bundle."""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from tfxformer.runtime.format import flatbuffer, metadata
from tfxformer.runtime.model_file import open_file
from tfxformer.runtime.quiet import quiet_runtime

NOT_DELEGATED = -1  # the default delegate refused the file


@dataclass(frozen=True)
class Inspection:
    """A .tflite file, looked into; `str()` is a table for people, `to_dict()` for programs.

    Attributes:
        path: str.
        bytes, zipped_bytes: int, size of the file, and after deflate.
        signatures: {name: SignatureInfo}.
        operators: {name: count} over all signatures.
        bytes_by_type: {element type: bytes} of the constants, each buffer counted once.
        partitions: {signature: number of graph pieces that run on LiteRT's default delegate, XNNPACK}; one or
            two is whole, many mean that the graph is cut up.
        metadata: dict, our own entry (task, labels, lengths, quantization); empty for foreign files.
        files: {name: bytes} of the associated files.
        mediapipe: bool, whether the file carries MediaPipe's metadata.
    """

    path: str
    bytes: int
    zipped_bytes: int
    signatures: dict[str, flatbuffer.SignatureInfo]
    operators: dict[str, int]
    bytes_by_type: dict[str, int]
    partitions: dict[str, int]
    metadata: dict
    files: dict[str, int]
    mediapipe: bool

    def to_dict(self) -> dict:
        """The inspection as JSON-ready values."""
        return json.loads(json.dumps(asdict(self)))

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.bytes:,} bytes, {self.zipped_bytes:,} zipped"]
        for key in ("task", "labels", "problem_type", "quantization", "version"):
            if self.metadata.get(key) is not None:
                lines.append(f"  {key}: {self.metadata[key]}")
        for info in self.signatures.values():
            pieces = self.partitions[info.name]
            known = "not delegated" if pieces == NOT_DELEGATED else f"{pieces} XNNPACK partitions"
            lines.append(f"  signature {info.name} ({known})")
            for arrow, tensors in (("<-", info.inputs), ("->", info.outputs)):
                lines.extend(f"    {arrow} {t.name} {t.dtype} {list(t.shape)}" for t in tensors)
        counts = ", ".join(f"{name} {count}" for name, count in Counter(self.operators).most_common())
        lines.append(f"  operators: {counts}")
        lines.append("  constants: " + ", ".join(f"{k} {v:,} bytes" for k, v in self.bytes_by_type.items()))
        if self.files:
            lines.append("  files: " + ", ".join(f"{k} {v:,} bytes" for k, v in self.files.items()))
        lines.append(f"  MediaPipe metadata: {'yes' if self.mediapipe else 'no'}")
        return "\n".join(lines)


def inspect(path: str | Path) -> Inspection:
    """Looks into a .tflite file, ours or any, or the one inside a .litertlm bundle.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no .tflite file, or a damaged one.
    """
    file = open_file(path)
    return Inspection(
        path=str(path),
        bytes=file.place.stamp[2],
        zipped_bytes=len(zlib.compress(file.whole, 6)),
        signatures=file.signatures,
        operators=dict(flatbuffer.operators(file.model).most_common()),
        bytes_by_type=flatbuffer.bytes_by_type(file.model),
        partitions={name: count_partitions(file.content, name) for name in file.signatures},
        metadata=file.own,
        files=file.associated_files(),
        mediapipe=flatbuffer.get_metadata(file.model, metadata.MEDIAPIPE_ENTRY) is not None,
    )


def count_partitions(content: bytes, signature: str) -> int:
    """Pieces of a signature's graph that LiteRT's default delegate takes over."""
    from ai_edge_litert.interpreter import Interpreter

    model = flatbuffer.read(content)
    flatbuffer.keep_signature(model, signature)  # an interpreter tells of its first subgraph only
    try:
        with quiet_runtime():
            interpreter = Interpreter(model_content=flatbuffer.write(model), num_threads=min(4, os.cpu_count() or 1))
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError):  # operators of another runtime: a file we did not write
        return NOT_DELEGATED
    return sum(details["op_name"] == "DELEGATE" for details in interpreter._get_ops_details())
