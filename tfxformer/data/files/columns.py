"""Which column of a table is what, by the names that people and public datasets give them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from tfxformer.data.files.table import Table

# For each task and role the names, the first one ours.
_TEXTS = ("text", "sentence", "sentence1", "premise", "question1", "content")
_PAIRS = ("text_pair", "sentence2", "hypothesis", "question2")
ROLES: dict[str, dict[str, tuple[str, ...]]] = {
    "text-classification": {"text": _TEXTS, "pair": _PAIRS, "label": ("label", "labels")},
    "token-classification": {
        "text": ("text", "tokens", "words"),
        "label": ("label", "labels", "ner_tags", "tags", "spans", "entities", "upos", "pos_tags"),
    },
    "question-answering": {
        "text": ("text", "question"),
        "pair": ("text_pair", "context"),
        "label": ("label", "answers", "answer"),
    },
    "text-embedding": {
        "text": ("text", "sentence", "sentence1", "anchor", "query", "question1", "question"),
        "pair": ("text_pair", "sentence2", "positive", "document", "passage", "question2", "answer"),
        "label": ("label", "score", "similarity", "similarity_score"),
    },
    "seq2seq-lm": {
        "text": ("source", "document", "article", "dialogue"),
        "label": ("target", "summary", "highlights"),
    },
}
OF_TEXTS = {"text": _TEXTS, "pair": _PAIRS}  # tasks that learn from texts alone
# Where a table has several names of a role, the first of these that it has is meant: a text that comes with its words,
# and entities before parts of speech.
PREFERRED = (
    ("tokens", "text"),
    ("words", "text"),
    ("ner_tags", "pos_tags"),
    ("upos", "pos_tags"),
    ("tags", "pos_tags"),
)


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns by what they are; None where it has none."""

    text: str
    pair: str | None = None
    label: str | None = None


def choose_columns(table: Table, task: str, labelled: bool, given: dict[str, str | None] | None = None) -> Columns:
    """The columns of a task: those that the caller names, else the one column that has a name of the role.

    Args:
        table: the table.
        task: name of the task.
        labelled: whether the label must be there.
        given: {"text" | "pair" | "label": name}, what the caller says.

    Raises:
        ValueError: for a column that is not there, for two that could be meant, and for one whose name is nearly that
            of a role which no column has.
    """
    roles = ROLES.get(task, OF_TEXTS)
    given = {role: name for role, name in (given or {}).items() if name is not None}
    for role, name in given.items():
        if role not in roles:
            raise ValueError(f"{task} reads no {role} column; it reads {', '.join(roles)}.")
        if name not in table.columns:
            raise ValueError(f"{table.source}: there is no column {name!r}; there is {_listed(table)}.")
    wanted = {role: names for role, names in roles.items() if role != "label" or labelled}
    chosen = {role: given.get(role) or _by_name(table, role, names) for role, names in wanted.items()}
    required = ("text", "pair", "label") if task == "question-answering" else ("text", "label")
    for role, names in wanted.items():
        if chosen[role] is None and role in required:
            raise ValueError(
                f"{table.source}: there is no column {names[0]!r}; there is {_listed(table)}. It may also be named "
                f"{', '.join(names[1:])}, or any name that you give with {_option(role)}."
            )
        if chosen[role] is None:
            _refuse_near(table, names)
    return Columns(**chosen)


def _by_name(table: Table, role: str, names: tuple[str, ...]) -> str | None:
    found = [name for name in names if name in table.columns]
    for better, worse in PREFERRED:
        if better in found and worse in found:
            found.remove(worse)
    if len(found) > 1 and found[0] != names[0]:  # our own name leaves no doubt
        raise ValueError(
            f"{table.source}: both {found[0]!r} and {found[1]!r} could be the {role}: say which with {_option(role)}."
        )
    return found[0] if found else None


def _refuse_near(table: Table, names: tuple[str, ...]) -> None:
    """Refuses a column that would be left out although its name is near to one that is wanted and not there."""
    for name in table.columns:
        if near := difflib.get_close_matches(name.strip().lower(), names, 1, 0.75):
            raise ValueError(f"{table.source}: the column {name!r} is not read; did you mean {near[0]!r}?")


def _option(role: str) -> str:
    return f"{role}_column= (--{role}-column)"


def _listed(table: Table) -> str:
    return ", ".join(map(repr, table.columns))
