"""What the terminal gets: results on stdout, everything else on stderr, errors in one line."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from tfxformer.arguments.notices import TfxformerWarning


@contextlib.contextmanager
def everything_to_stderr() -> Iterator[None]:
    """Sends what anyone prints (Keras' progress bars too) to stderr, and each warning there in one line."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.showwarning = _show_warning
        # Warnings of ours are for users; those of other packages are for programmers.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=r"tfxformer|keras\.src\.trainers", category=UserWarning)
        warnings.filterwarnings("always", category=TfxformerWarning)
        yield


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def one_line(error: Exception) -> str:
    """An error's message without line breaks; the kind of those that nobody phrased for users."""
    text = " ".join(str(error).split())
    expected = isinstance(error, (ValueError, OSError, RuntimeError, ImportError, TypeError))
    return text if expected and text else f"{type(error).__name__}: {text}"


def fail(message: str, code: int) -> int:
    """Says what went wrong; returns the exit code."""
    print(f"error: {message}", file=sys.stderr)
    return code


def verbose() -> int:
    """Keras' progress bar on a terminal, a line an epoch elsewhere."""
    return 1 if sys.stderr.isatty() else 2


def coloured() -> bool:
    """Whether a result may hold colours: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return sys.__stdout__ is not None and sys.__stdout__.isatty() and not os.environ.get("NO_COLOR")


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def say_next_steps(file) -> None:
    """How an exported file gets to people: a line for each platform."""
    name = shlex.quote(str(file))
    say("Next, run it:")
    say(f"  in a browser: tfxformer page {name} --output page")
    for platform, called in (("Android", "android"), ("iOS", "ios")):
        say(f"  on {platform + ':':<11}tfxformer app {name} --platform {called} --output app-{called}")


def show(action: str, result: dict, as_json: bool) -> None:
    """Prints a result, for programs or for people."""
    text = result.pop("text", None)
    if as_json:
        print(_json(result))
    elif text is not None:
        print(text)
    else:
        shown = {"compress": _show_sweep, "demo": _show_demo, "generate": _show_targets, "predict": _show_predictions}
        shown |= {"tune": _show_search}
        shown.get(action, _show_facts)(result)


def _json(result: dict) -> str:
    """JSON for programs, which has no NaN.

    Raises:
        ValueError: for a number that is not finite.
    """
    try:
        return json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"The result has a number that is not finite, which JSON cannot hold ({error}).") from error


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_header=bool(header))
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: a prediction may hold [brackets]
    Console().print(table)


def _show_demo(result: dict) -> None:
    from tfxformer.recipes.report import conditions, table

    _print_table(*table(result))
    print(conditions(result))
    print(f"Written to {result['folder']}: models, README.md, results.json and two plots.")
    files = [row["file"] for row in result["variants"].values() if str(row.get("file")).endswith(".tflite")]
    say_next_steps(Path(result["folder"], files[-1]))


def _show_sweep(result: dict) -> None:
    from tfxformer.recipes.sweep.results import conclusion, conditions, table

    header, rows = table(result)
    for number, name, *_ in rows:  # in the table they would take the width of a terminal
        print(f"{number}: {name}")
    _print_table(header[:1] + header[2:], [row[:1] + row[2:] for row in rows])
    print(conclusion(result), conditions(result), sep="\n")
    print(f"Written to {result['folder']}: the chosen model, RESULTS.md, results.json and two plots.")
    if result["chosen"] is not None:
        say_next_steps(Path(result["folder"], f"{result['name']}.tflite"))


def _show_search(result: dict) -> None:
    from tfxformer.recipes.sweep.tuning.results import conclusion, conditions, table

    _print_table(*table(result))
    print(conclusion(result), conditions(result), sep="\n")
    print(f"Written to {result['folder']}: RESULTS.md, results.json and search.png. The best setting again:")
    print(f"  {result['command']}")


def _show_facts(result: dict) -> None:
    _print_table([], [[name, text] for name, text in _facts(result)])


def _facts(result: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in result.items():
        if isinstance(value, dict):
            yield from _facts(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _text(value)


def _text(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _show_predictions(result: dict) -> None:
    rows = []
    for prediction in result["predictions"]:
        text, *answers = prediction.values()
        rows.append([_text(text), *("; ".join(_pieces(answer)) for answer in answers)])
    _print_table(list(result["predictions"][0]), rows)


def _show_targets(result: dict) -> None:
    _print_table(["source", "target"], [list(row.values()) for row in result["targets"]])


def _pieces(answer) -> Iterator[str]:
    """An answer's parts: a name, {name: number}, or a list of them."""
    if isinstance(answer, dict):
        yield ", ".join(f"{name} {_text(value)}" for name, value in answer.items())
    elif isinstance(answer, list) and answer and isinstance(answer[0], (dict, list)):
        for part in answer:
            yield from _pieces(part)
    else:
        yield _text(answer)
