"""The batches that a file is calibrated and verified on. Shape letters: B batch, S sequence length."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def listed(data) -> list | None:
    """Representative data as a list; None where there is none."""
    if data is None:
        return None
    if isinstance(data, (str, bytes)):
        raise TypeError(f"representative must be a list of texts, got one {type(data).__name__}: pass [text].")
    data = [data] if isinstance(data, dict) else list(data)
    if not data:
        raise ValueError("The representative data is empty: pass some texts that the model will meet.")
    return data


def batches(data: Iterable[dict]) -> list[dict]:
    """Splits batches into batches of one, the shape every signature has: [B, ...] -> B times [1, ...]."""
    rows = []
    for batch in data:
        count = len(next(iter(batch.values())))
        rows.extend({name: np.asarray(value)[i : i + 1] for name, value in batch.items()} for i in range(count))
    return rows


def in_groups(rows: list[dict], size: int) -> list[dict]:
    """Batches of one as batches of up to `size`, in their order: Keras reads them in fewer calls."""
    groups = (rows[start : start + size] for start in range(0, len(rows), size))
    return [{name: np.concatenate([row[name] for row in group]) for name in group[0]} for group in groups]


def unpadded(batch: dict) -> dict:
    """A batch without the columns that are padding in every row: [B, S] -> [B, up to the last token].

    One of a model of somebody's that names its inputs otherwise stays as it is.
    """
    if "padding_mask" not in batch or len({ids.shape for ids in batch.values()}) > 1:
        return batch
    end = int(np.flatnonzero(batch["padding_mask"].any(axis=0)).max(initial=0)) + 1
    return {name: ids[:, :end] for name, ids in batch.items()}
