"""The pipeline of `preparing` as an Apache Beam job: on Dataflow, Flink or Spark, the same bytes as on one machine.

    from tfxformer.data.records import beam
    beam.prepare_records("gs://bucket/*.txt", "gs://bucket/train", tokenizer, options=["--runner=DataflowRunner"])

Groups of documents are tokenized and packed anywhere, in any order; the numbers of their rows, summed up, tell where
the rows of each belong, and each shard is put together from its parts. Needs the extra: pip install "tfxformer[beam]".
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfxformer.data.records import files as record_files
from tfxformer.data.records import preparing, sources
from tfxformer.data.records.preparing import Preparation
from tfxformer.data.records.records import Records
from tfxformer.extras import needs
from tfxformer.text import Tokenizer

# In the same process, with `--direct_num_workers` more of them; Beam's own choice would download a program first.
_LOCAL = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


@dataclass(frozen=True)
class _Group:
    """What a group of documents became; as `preparing.Prepared`, the rows as bytes."""

    number: int
    rows: list[bytes]
    tokens: list[int]
    documents: int


@dataclass(frozen=True)
class _Places:
    """Where rows belong: the first row of each group, int64 [groups, sets], and what there is in all."""

    first: np.ndarray
    rows: list[int]
    tokens: list[int]
    documents: int


def prepare_records(
    source: str | Path | Sequence[str | Path],
    folder: str | Path,
    tokenizer: Tokenizer,
    *,
    sequence_length: int | Sequence[int] = 128,
    kind: str = "causal",
    documents: str = "line",
    field: str = "text",
    shards: int = 8,
    options: Sequence[str] | None = None,
) -> Records | dict[int, Records] | None:
    """`data.prepare_records` as a Beam job: equal files, settings and tokenizers make equal bytes.

    A worker holds the text and rows of a group (1 MiB, or one longer document) in memory, and a shard on its disk.

    Args:
        source: paths or patterns of .txt and .jsonl files, as Beam's file systems know them; what a pattern finds is
            read in the order of the names.
        folder: new or empty, where all workers can write.
        options: of the pipeline, as on its command line; None runs it in this process.

    Returns:
        The records, as `data.prepare_records`; None where they are on another machine.

    Raises:
        ImportError: without Apache Beam.
        FileNotFoundError, FileExistsError, ValueError: for what can be seen before the job runs.
        RuntimeError: Beam's, for what a worker met, with its message; nothing is left behind.
    """
    preparation = Preparation(kind, preparing.as_lengths(sequence_length), documents, field)
    return prepare(preparation, source, folder, tokenizer, shards, options)


def prepare(preparation: Preparation, source, folder, tokenizer: Tokenizer, shards: int, options=None):
    """`prepare_records` with its settings in one."""
    beam = _beam()
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    record_files.check_shards(shards)
    preparation.check(tokenizer)
    groups = sources.plan(_sizes(source), preparation.documents, preparation.group)
    if not groups:
        preparing.check_any(0, 0)
    folder = str(folder)
    _make_folders(folder, preparation)
    try:
        given = PipelineOptions(list(options) if options else [f"--runner={_LOCAL}"])
        with beam.Pipeline(options=given) as pipeline:
            _build(pipeline, groups, folder, preparation, tokenizer, shards)
    except BaseException:
        if FileSystems.exists(folder):
            FileSystems.delete([folder])
        raise
    return preparing.open_prepared(preparation, folder) if Path(folder).is_dir() else None


def _beam():
    needs("A Beam job", "apache_beam")
    import apache_beam

    return apache_beam


def _build(pipeline, groups: list, folder: str, preparation: Preparation, tokenizer: Tokenizer, shards: int) -> None:
    """The job: groups -> rows -> parts of shards -> shards -> index."""
    beam = _beam()
    from apache_beam.pvalue import AsSingleton

    content, fingerprint = tokenizer.to_json(), tokenizer.fingerprint
    sets = len(preparation.sequence_lengths)
    prepared = (
        pipeline
        | "groups" >> beam.Create(list(enumerate(groups)))
        | "spread" >> beam.Reshuffle()
        | "tokenize and pack" >> beam.Map(_prepared, preparation, content)
        | "keep" >> beam.Reshuffle()  # or some runners would tokenize again for the second reader
    )
    places = (
        prepared
        | "count" >> beam.Map(_counts, preparation)
        | "gather" >> beam.combiners.ToList()
        | "number" >> beam.Map(_places)
    )
    keyed = tuple[int, tuple[int, bytes]]
    parts = beam.FlatMap(_parts, AsSingleton(places), preparation, shards).with_output_types(keyed)
    empty = beam.Create([(key, (0, b"")) for key in range(sets * shards)]).with_output_types(keyed)
    _ = (
        (prepared | "part" >> parts, pipeline | "every shard" >> empty)
        | "together" >> beam.Flatten()
        | "by shard" >> beam.GroupByKey()
        | "write" >> beam.Map(_write_shard, AsSingleton(places), preparation, folder, shards)
        | "written" >> beam.combiners.ToList()
        | "index" >> beam.Map(_write_index, AsSingleton(places), preparation, folder, fingerprint)
    )


def _prepared(group: tuple[int, tuple], preparation: Preparation, content: str) -> _Group:
    number, spans = group
    texts = sources.read_group(spans, preparation.documents, preparation.field, _open)
    found = preparation.rows(texts, _tokenizer(content))
    return _Group(number, [rows.tobytes() for rows in found.rows], found.tokens, found.documents)


def _counts(group: _Group, preparation: Preparation) -> tuple[int, list[int], list[int], int]:
    """(number, rows of each set, tokens of each set, documents) of a group."""
    sizes = [form.record_bytes for form in preparation.formats()]
    rows = [len(content) // size for content, size in zip(group.rows, sizes, strict=True)]
    return group.number, rows, group.tokens, group.documents


def _places(counts: list) -> _Places:
    counts = sorted(counts)
    rows = np.array([some for _, some, _, _ in counts], np.int64)  # [groups, sets]
    tokens = np.array([some for _, _, some, _ in counts], np.int64).sum(0).tolist()
    documents = sum(some for *_, some in counts)
    preparing.check_any(int(rows.sum()), documents)
    return _Places(rows.cumsum(0) - rows, rows.sum(0).tolist(), tokens, documents)


def _parts(group: _Group, places: _Places, preparation: Preparation, shards: int) -> Iterator[tuple[int, tuple]]:
    """(set and shard, (its row where they begin, bytes of rows)) of a group."""
    forms = zip(group.rows, preparation.formats(), places.first[group.number].tolist(), strict=True)
    for index, (content, form, first) in enumerate(forms):
        rows = np.frombuffer(content, np.uint8).reshape(-1, form.record_bytes)
        for shard in range(min(shards, len(rows))):
            row = first + shard
            yield index * shards + row % shards, (row // shards, rows[shard::shards].tobytes())


def _write_shard(
    keyed: tuple[int, Iterable], places: _Places, preparation: Preparation, folder: str, shards: int
) -> tuple[int, int, record_files.Shard] | None:
    """A whole shard, put together on the worker's disk: every row has its place, so parts may come in any order."""
    from apache_beam.io.filesystems import FileSystems

    key, parts = keyed
    index, shard = divmod(key, shards)
    size, count = preparation.formats()[index].record_bytes, len(range(shard, places.rows[index], shards))
    if not places.rows[index]:
        return None
    with tempfile.TemporaryFile() as whole:
        written = 0
        for row, content in parts:
            whole.seek(row * size)
            written += whole.write(content)
        if written != count * size:
            raise RuntimeError(f"Shard {shard} got {written:,} bytes for {count} rows of {size:,}.")
        whole.seek(0)
        digest, name = hashlib.sha256(), record_files.shard_name("data", shard, shards)
        target = FileSystems.join(_folders(preparation, folder)[index], name)
        with FileSystems.create(target, "application/octet-stream", "uncompressed") as file:
            while block := whole.read(1 << 20):
                digest.update(block)
                file.write(block)
    return index, shard, record_files.Shard(name, count, count * size, digest.hexdigest())


def _write_index(written: list, places: _Places, preparation: Preparation, folder: str, fingerprint: str) -> None:
    from apache_beam.io.filesystems import FileSystems

    shards = sorted(one for one in written if one is not None)
    for index, (part, form) in enumerate(zip(_folders(preparation, folder), preparation.formats(), strict=True)):
        entries = [shard for of, _, shard in shards if of == index]
        if entries:
            origin = preparation.origin(fingerprint, index, places.documents, places.tokens[index])
            text = record_files.index_text(part, "data", entries, form, origin)
            with FileSystems.create(FileSystems.join(part, record_files.INDEX), "application/json") as file:
                file.write(text.encode())
        elif FileSystems.exists(part):
            FileSystems.delete([part])


def _folders(preparation: Preparation, folder: str) -> list[str]:
    """As `Preparation.folders`, which makes paths of this machine."""
    from apache_beam.io.filesystems import FileSystems

    lengths = preparation.sequence_lengths
    return [FileSystems.join(folder, str(length)) for length in lengths] if len(lengths) > 1 else [folder]


def _make_folders(folder: str, preparation: Preparation) -> None:
    from apache_beam.io.filesystems import FileSystems

    if FileSystems.match([FileSystems.join(folder, "*")])[0].metadata_list:
        raise FileExistsError(f"{folder} has files already. Name a new folder, or remove it first.")
    for part in _folders(preparation, folder):
        if not FileSystems.exists(part):
            FileSystems.mkdirs(part)


def _sizes(source: Any) -> list[tuple[str, int]]:
    """(name, bytes) of the files of patterns, those of each in the order of their names."""
    from apache_beam.io.filesystems import FileSystems

    patterns = [source] if isinstance(source, (str, Path)) else list(source)
    if not all(isinstance(pattern, (str, Path)) for pattern in patterns):
        raise TypeError("A Beam job reads files: give paths or patterns, or write the texts to a .jsonl file first.")
    sizes = []
    for pattern, found in zip(patterns, FileSystems.match(list(map(str, patterns))), strict=True):
        if not found.metadata_list:
            raise FileNotFoundError(f"There is no file {str(pattern)!r}.")
        sizes += sorted((one.path, one.size_in_bytes) for one in found.metadata_list)
    return sizes


def _open(file: str):
    from apache_beam.io.filesystems import FileSystems

    return FileSystems.open(file, compression_type="uncompressed")


@functools.lru_cache(maxsize=1)
def _tokenizer(content: str) -> Tokenizer:
    """One for all groups of a worker."""
    return Tokenizer.from_json(content)
