"""What a .tflite file costs: its bytes, its bytes in an app store's zip, and the time of one call."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tfxformer.export import LiteRTGenerator, LiteRTModel
from tfxformer.recipes.latency import race
from tfxformer.recipes.models import reads_sources
from tfxformer.recipes.report import markdown


@dataclass(frozen=True)
class FileCost:
    """One file.

    Attributes:
        name: str, what it is called in the table.
        bytes: int, its size.
        zipped_bytes: int, its size after deflate, where zeros and repeated values show.
        median_ms, low_quartile_ms, high_quartile_ms: float, time of one call of its signature, batch 1; of a file that
            writes targets, of a whole one: the longest source read, and as many tokens written as the cache holds.
    """

    name: str
    bytes: int
    zipped_bytes: int
    median_ms: float
    low_quartile_ms: float
    high_quartile_ms: float


@dataclass(frozen=True)
class FileCosts:
    """Files side by side; the others are compared with the first.

    Attributes:
        rows: tuple of `FileCost`.
        threads: int, of the runtime.
        rounds: int, timed calls of each.
    """

    rows: tuple[FileCost, ...]
    threads: int
    rounds: int

    def to_dict(self) -> dict:
        """For JSON."""
        return {"threads": self.threads, "rounds": self.rounds, "files": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        """A Markdown table."""
        first = self.rows[0]
        header = ["file", "MB", "zip MB", "ms a call", "smaller", "zip smaller", "faster"]
        rows = [
            [
                row.name,
                f"{row.bytes / 1e6:.2f}",
                f"{row.zipped_bytes / 1e6:.2f}",
                f"{row.median_ms:.2f}",
                *(
                    f"{getattr(first, kind) / getattr(row, kind):.2f}x"
                    for kind in ("bytes", "zipped_bytes", "median_ms")
                ),
            ]
            for row in self.rows
        ]
        return markdown(header, rows)


def file_costs(
    files: Mapping[str, str | Path], batch: dict | None = None, *, rounds: int = 50, num_threads: int = 1
) -> FileCosts:
    """Measures .tflite files of one signature, or of encoder-decoders, timed in interleaved rounds.

    Args:
        files: name -> path; the first is the one to compare with.
        batch: {input name: array [1, ...]} for all of them; None takes ones (all tokens real) in each file's shapes, as
            files that write targets always do.
        rounds: int, timed calls of each.
        num_threads: int, of the runtime.

    Raises:
        ValueError: for no files, less than two rounds, and a file of several signatures. FileNotFoundError: for one
            that is not there.
    """
    if not files:
        raise ValueError("file_costs: give at least one file, {name: path}.")
    if rounds < 2:
        raise ValueError(f"file_costs: the spread of calls needs at least 2 rounds; got {rounds}.")
    times = race({name: _call(path, batch, num_threads) for name, path in files.items()}, rounds)
    rows = []
    for name, path in files.items():
        content = Path(path).read_bytes()
        spread = {key: value for key, value in times[name].items() if key != "rounds"}
        rows.append(FileCost(name, len(content), len(zlib.compress(content, 6)), **spread))
    return FileCosts(tuple(rows), num_threads, rounds)


def _call(path, batch: dict | None, num_threads: int) -> Callable:
    """One call of a file's signature, or a whole target of a file that writes."""
    if reads_sources(path):
        return _target(LiteRTGenerator(path, num_threads=num_threads))
    model = LiteRTModel(path, num_threads=num_threads)
    if len(model.signatures) != 1:
        raise ValueError(
            f"file_costs: {path} has {len(model.signatures)} signatures ({', '.join(model.signatures)}), whose calls "
            "cost different times: export one sequence length for a comparison."
        )
    ((signature, info),) = model.signatures.items()
    inputs = batch or {tensor.name: np.ones(tensor.shape, tensor.dtype) for tensor in info.inputs}
    return lambda: model.run(signature, inputs)


def _target(generator: LiteRTGenerator) -> Callable:
    steps, source = generator.steps(), [1] * generator.source_lengths[-1]

    def write():
        steps.position = 0  # what the cache holds is written again
        steps.encode(source)
        for _ in range(generator.cache_length):
            steps.decode(1)

    return write
