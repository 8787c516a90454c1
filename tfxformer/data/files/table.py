"""What every kind of data file is read into: columns, and where in the file each row stands."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """The columns of a source.

    Attributes:
        source: the file, the folder, or what else was read, as errors name it.
        places: for each row, where it stands ("line 3").
        columns: {name: values of the rows}.
        label_names: {column: names that its integers stand for}, where the source says them.
    """

    source: str
    places: list[str]
    columns: dict[str, list]
    label_names: dict[str, list[str]] = field(default_factory=dict)

    def error(self, row: int, column: str, what: str) -> ValueError:
        return ValueError(f"{self.source}, {self.places[row]}, column {column!r}: {what}.")


def table_of(source, records: list[tuple[str, dict]], label_names=None) -> Table:
    """A table of records, (place, {column: value}), whose columns are those of the first one.

    A later row without one of them has None there, which whoever reads the column refuses.

    Raises:
        ValueError: without records.
    """
    if not records:
        raise ValueError(f"{source} has no rows.")
    names = dict.fromkeys(name for _, record in records for name in record)
    columns = {name: [record.get(name, MISSING) for _, record in records] for name in names}
    return Table(str(source), [place for place, _ in records], columns, label_names or {})


class _Missing:
    """Stands for a field that a record does not have (None is a value: no answer)."""

    def __repr__(self):
        return "nothing"


MISSING = _Missing()
