"""Raw texts as records: what becomes of a group of documents, and the pipeline of one machine.

    prepare_records("corpus.txt", "data/train", tokenizer, sequence_length=128, kind="causal", shards=8)

Each group (`sources`) is tokenized and packed by itself, its rows follow those of the group before, and row k goes to
shard k modulo the number of shards. So equal sources, tokenizers and settings make equal bytes, whoever makes them: the
threads here, or the workers of `data.beam`.
"""

from __future__ import annotations

import contextlib
import copy
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfxformer.data.records import files as record_files
from tfxformer.data.records import sources
from tfxformer.data.records.format import RecordFormat, RecordsError
from tfxformer.data.records.records import Records
from tfxformer.data.targets.denoising import piece_rows, text_pieces
from tfxformer.data.targets.documents import text_documents
from tfxformer.data.targets.packing import Blocks, join, pack
from tfxformer.text import Tokenizer

KINDS = ("causal", "masked", "pieces")
# Groups at once, beside writing. The tokenizer uses every core by itself, and its threads wait in loops for one
# another; but of one long document it uses a single core.
_THREADS = {"line": 1, "paragraph": 1, "file": 3}


_FURTHER_COLUMNS = {
    "causal": {"targets": "int32", "weights": "float32"},
    "masked": {"segment_ids": "int32"},
    "pieces": {},
}


class Prepared(NamedTuple):
    """What a group became: for each sequence length its framed rows, uint8 [R, record_bytes], and the tokens in them.

    Tokens are those that are not padding (of causal rows, the pairs); `documents` were read.
    """

    rows: list[np.ndarray]
    tokens: list[int]
    documents: int


@dataclass(frozen=True)
class Preparation:
    """How texts become rows.

    Attributes:
        kind: "causal" (`packing.Blocks`: full blocks of documents with their end tokens), "masked" (token_ids,
            padding_mask, segment_ids: a row for each document, and further rows for what does not fit) or "pieces"
            (token_ids, padding_mask: documents one after another, without special tokens, cut into full rows).
        sequence_lengths: of the rows; a masked row has the shortest that holds it.
        documents, field: how files are read, see `sources.read_group`.
        group: bytes of a group.
    """

    kind: str
    sequence_lengths: tuple[int, ...]
    documents: str = "line"
    field: str = "text"
    group: int = sources.GROUP

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} must be one of {', '.join(KINDS)}.")
        sources.check_unit(self.documents)
        lengths = self.sequence_lengths
        if not lengths or min(lengths) < 1 or list(lengths) != sorted(set(lengths)):
            raise ValueError(f"sequence_length={lengths}: wanted a length, or several that grow.")
        if self.kind != "masked" and len(lengths) > 1:
            raise ValueError(f"sequence_length={lengths}: {self.kind} rows are full blocks of one length.")

    def check(self, tokenizer: Tokenizer) -> None:
        """Raises ValueError for a tokenizer that cannot write such rows."""
        if self.kind == "masked" and (tokenizer.mask_id is None or tokenizer.padding_id is None):
            raise ValueError(f"Masked rows need a mask and a padding token; {tokenizer} has not both.")

    def formats(self) -> list[RecordFormat]:
        """Of the rows of each sequence length."""
        dtypes = {"token_ids": "int32", "padding_mask": "int32"}
        dtypes |= _FURTHER_COLUMNS[self.kind]
        return [RecordFormat({name: (d, (length,)) for name, d in dtypes.items()}) for length in self.sequence_lengths]

    def rows(self, texts: list[str], tokenizer: Tokenizer) -> Prepared:
        """The rows of one group."""
        rows = {"causal": self._causal, "masked": self._masked, "pieces": self._pieces}[self.kind](texts, tokenizer)
        encoded = [form.encode(arrays) for form, arrays in zip(self.formats(), rows, strict=True)]
        counted = "weights" if self.kind == "causal" else "padding_mask"
        return Prepared(encoded, [int(arrays[counted].sum()) for arrays in rows], len(texts))

    def _causal(self, texts: list[str], tokenizer: Tokenizer) -> list[dict[str, np.ndarray]]:
        documents, (length,) = text_documents(tokenizer, texts), self.sequence_lengths
        if not (documents.lengths > 1).any():
            empty = np.zeros((0, length), np.int32)
            return [Blocks(empty, empty, empty, empty.astype(np.float32))._asdict()]
        return [pack(documents, length, tokenizer.padding_id or 0)._asdict()]

    def _masked(self, texts: list[str], tokenizer: Tokenizer) -> list[dict[str, np.ndarray]]:
        encoding = tokenizer.encode(texts, sequence_length=self.sequence_lengths[-1], return_overflow=True)
        names = ("token_ids", "padding_mask", "segment_ids")
        fits = np.searchsorted(self.sequence_lengths, encoding.padding_mask.sum(1))  # [R], the shortest that holds it
        return [
            {name: getattr(encoding, name)[fits == index, :length] for name in names}
            for index, length in enumerate(self.sequence_lengths)
        ]

    def _pieces(self, texts: list[str], tokenizer: Tokenizer) -> list[dict[str, np.ndarray]]:
        ids, (length,) = join(tokenizer.ids(texts, special_tokens=False)).ids, self.sequence_lengths
        return [piece_rows(text_pieces(ids, length), tokenizer.padding_id or 0)]

    def folders(self, folder) -> list[Path]:
        """Where the rows of each sequence length go: into the folder, or of several into folders of their own in it."""
        several = len(self.sequence_lengths) > 1
        return [Path(folder, str(length)) if several else Path(folder) for length in self.sequence_lengths]

    def origin(self, fingerprint: str, index: int, documents: int, tokens: int) -> dict[str, Any]:
        """What the index of one sequence length says of where its rows come from."""
        return {
            "tokenizer": fingerprint,
            "kind": self.kind,
            "sequence_length": self.sequence_lengths[index],
            "group": self.group,
            "documents": documents,  # that were read for all sequence lengths
            "tokens": tokens,  # that are not padding
        }


def prepare_records(
    source: str | Path | Sequence[Path] | Iterable,
    folder: str | Path,
    tokenizer: Tokenizer,
    *,
    sequence_length: int | Sequence[int] = 128,
    kind: str = "causal",
    documents: str = "line",
    field: str = "text",
    shards: int = 8,
    verbose: bool = False,
) -> Records | dict[int, Records]:
    """Tokenizes texts into a new folder of records, whole or not at all.

    Args:
        source: the path of a text file (UTF-8) or a .jsonl file, a list of `pathlib.Path`, or an iterable of texts or
            of dicts with a text each, which is read once and may be larger than memory.
        folder: must not exist yet, or be empty.
        tokenizer: its fingerprint is kept; `Records(folder, tokenizer=...)` refuses another one.
        sequence_length: of every row. Of masked rows several may be given, such as (64, 128, 256): each document goes
            to the shortest that holds it, and each length is a set of its own, in a folder named by it.
        kind: "causal": the pairs of a token and the next, packed into full blocks (`packing.pack`), for
            `tasks.CausalLM`; of a group of documents (1 MiB) the last block may have padding. "masked": a document a
            row, unmasked, for `tasks.MaskedLM`; what does not fit goes on in further rows. "pieces": documents one
            after another without special tokens, cut into full rows of `tasks.DenoisingLM.text_length` tokens; of a
            group the last row may have padding.
        documents: what a document of a text file is: "line", "paragraph" (between blank lines) or the whole "file".
        field: that holds the text in a .jsonl file or in dicts.
        shards: files of a set; a multiple of the number of workers lets each read its own ones only.
        verbose: show a progress bar on the standard error.

    Returns:
        The records; of several sequence lengths, length -> records, without those that hold no document.

    Raises:
        ValueError, TypeError: naming the file and line, or the element, that is no text; for a source without any.
        FileNotFoundError, FileExistsError: for a file that is not there, and a folder that has files.
        OSError: where the disk is full or refuses; nothing is left behind.
    """
    preparation = Preparation(kind, as_lengths(sequence_length), documents, field)
    return prepare(preparation, source, folder, tokenizer, shards, verbose)


def prepare(preparation: Preparation, source, folder, tokenizer: Tokenizer, shards: int, verbose: bool = False):
    """`prepare_records` with its settings in one."""
    record_files.check_shards(shards)
    preparation.check(tokenizer)
    groups, read, total = _opened(preparation, source)
    copies = _Copies(tokenizer)

    def work(group) -> Prepared:
        return preparation.rows(read(group), copies.own())

    with record_files.new_folder(folder) as temporary:
        parts = preparation.folders(temporary)
        sets = [record_files.ShardFiles(part, folder, "data", shards) for part in parts]
        tokens, seen = [0] * len(sets), 0
        try:
            with _bar(total, verbose) as advance:
                for group, prepared in _in_order(work, groups, _THREADS[preparation.documents]):
                    for index, (files, rows) in enumerate(zip(sets, prepared.rows, strict=True)):
                        files.write(rows)
                        tokens[index] += prepared.tokens[index]
                    seen += prepared.documents
                    advance(_size(group))
        finally:
            for files in sets:
                files.close()
        check_any(sum(files.rows for files in sets), seen)
        for index, (part, files, form) in enumerate(zip(parts, sets, preparation.formats(), strict=True)):
            if files.rows:
                origin = preparation.origin(tokenizer.fingerprint, index, seen, tokens[index])
                with record_files.writing(folder):
                    record_files.index_shards(part, "data", shards, form, origin)
            else:
                files.remove()
    return open_prepared(preparation, folder)


def check_any(rows: int, documents: int) -> None:
    """Raises RecordsError where nothing came of the source."""
    if not documents:
        raise RecordsError("The source is empty: it has no document with a character in it.")
    if not rows:
        raise RecordsError(f"There is no row to write: none of {documents} documents has two tokens (pieces: one).")


def open_prepared(preparation: Preparation, folder) -> Records | dict[int, Records]:
    """The records of one sequence length, or length -> records."""
    parts = preparation.folders(folder)
    if len(parts) == 1:
        return Records(folder, check=False)
    lengths = zip(preparation.sequence_lengths, parts, strict=True)
    return {length: Records(part, check=False) for length, part in lengths if part.exists()}


def as_files(source) -> list[str] | None:
    """The names of the files that a source is, or None where it is an iterable of texts."""
    if isinstance(source, (str, Path)):
        return [str(source)]
    if isinstance(source, (list, tuple)) and source and all(isinstance(one, Path) for one in source):
        return [str(one) for one in source]
    return None


def as_lengths(sequence_length: int | Sequence[int]) -> tuple[int, ...]:
    """One sequence length or several, as a tuple."""
    return (sequence_length,) if isinstance(sequence_length, int) else tuple(sequence_length)


def _opened(preparation: Preparation, source) -> tuple[Iterable, Callable, int | None]:
    """The groups of a source, what reads the texts of one, and the bytes of all where they are known."""
    files = as_files(source)
    if files is None:
        return sources.iterable_groups(source, preparation.field, preparation.group), lambda texts: texts, None
    sizes = sources.local_sizes(files)
    groups = sources.plan(sizes, preparation.documents, preparation.group)

    def read(spans) -> list[str]:
        return sources.read_group(spans, preparation.documents, preparation.field, sources.open_local)

    return groups, read, sum(size for _, size in sizes)


def _size(group) -> int:
    """Bytes of spans, characters of texts."""
    return sum(len(part) if isinstance(part, str) else part.end - part.begin for part in group)


class _Copies:
    """A tokenizer for each thread, as one encodes a batch at a time: the given one for the first, else copies."""

    def __init__(self, tokenizer: Tokenizer):
        self._given, self._unused, self._local = tokenizer, [tokenizer], threading.local()

    def own(self) -> Tokenizer:
        if not hasattr(self._local, "tokenizer"):
            try:
                self._local.tokenizer = self._unused.pop()
            except IndexError:
                self._local.tokenizer = copy.copy(self._given)
        return self._local.tokenizer


def _in_order(work: Callable, items: Iterable, threads: int) -> Iterator[tuple[Any, Any]]:
    """(item, its result) in the order of the items, some of which are worked on at once."""
    with ThreadPoolExecutor(min(threads, (os.cpu_count() or 1) + 1)) as pool:
        waiting = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) > threads:
                    done, future = waiting.popleft()
                    yield done, future.result()
            for done, future in waiting:
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


@contextlib.contextmanager
def _bar(total: int | None, verbose: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar over the characters of the source."""
    if not verbose:
        yield lambda size: None
        return
    from rich import progress
    from rich.console import Console

    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn())
    times = (progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*columns, *times, console=Console(stderr=True)) as shown:
        task = shown.add_task("Tokenizing", total=total)
        yield lambda size: shown.advance(task, size)
