"""What the tables of results share: results files, and how their numbers and conditions are written."""

from __future__ import annotations

import json
from pathlib import Path

from tfxformer.recipes import report

RESULTS = Path(__file__).parent / "results"


def read(name: str) -> dict:
    """A results file."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table and the end of its last line."""
    return report.markdown(header, rows) + "\n"


def made_by(results: dict) -> str:
    """The command, the rounds, the processor and how busy it was, in a line."""
    machine = results["machine"]
    load = machine["load_average"]
    load = f", shared with other work (load average {load:.0f})" if load > 1 else ""
    return (
        f"`{results['command']}`: {results['rounds']} interleaved rounds, quartiles in brackets; "
        f"{machine['cores']} cores of {machine['processor']}{load}.\n"
    )


def spread(values: dict, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
    """A median with its quartiles."""
    middle, low, high = (values[key] * scale for key in ("median", "low_quartile", "high_quartile"))
    return f"{middle:.{digits}f}{unit} ({low:.{digits}f}-{high:.{digits}f})"
