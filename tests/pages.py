"""Runs what a page of the documentation shows: its blocks in their order, on the page's own words.

A page is a Markdown file. Its ```python blocks share one namespace, its ```sh blocks one folder, which is empty at the
start, and both run in the order in which they stand. Nothing is put in a block's place. What is declared, by a comment
on the line above the fence:

    <!-- not run: why -->    the block is shown only; each language but those of `RUN` and `SHOWN` needs this
    <!-- typed: words -->    what the commands of this sh block read from the keyboard

A ```text block right after one that runs is what that one prints: each of its lines is there, in this order, whatever
the numbers are.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUN = ("python", "sh")
SHOWN = ("text", "csv", "json")  # what is no program; a page that wants such a file writes it in a block that runs
# Pages that are written by the code, and those of the house.
WRITTEN = (
    "coverage",
    "equality",
    "equality_of_backends",
    "files_of_families",
    "installs",
    "models",
    "public_names",
    "results",
    "whole_or_nothing",
)
FENCE = re.compile(
    r"(?:^<!-- (?P<key>not run|typed): (?P<value>.*?) -->\n)?^```(?P<language>[^\n`]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: what stands behind the fence.
        code: its lines.
        line: of the page, 1 for the first; where the code begins.
        not_run: why it is not run, or None.
        typed: what its commands read from the keyboard.
        after: where in the page it ends, and `begins` where its fence (or its comment) begins.
    """

    language: str
    code: str
    line: int
    not_run: str | None
    typed: str
    begins: int
    after: int

    @property
    def runs(self) -> bool:
        return self.language in RUN and self.not_run is None


def pages() -> list[Path]:
    """The README, CONTRIBUTING.md and every page of docs/ that people write."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    found = [path for path in found if path.stem not in WRITTEN and "reference" not in path.parts]
    return [ROOT / "README.md", *found]


def name_of(page: Path) -> str:
    """A page's path below the root, for people and for tests' names."""
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    found = []
    for match in FENCE.finditer(text):
        key, value = match["key"], match["value"]
        line = text.count("\n", 0, match.start("code")) + 1
        not_run, typed = (value if key == wanted else None for wanted in ("not run", "typed"))
        place = {"begins": match.start(), "after": match.end()}
        found.append(Block(match["language"].strip(), match["code"], line, not_run, typed or "", **place))
    return found


def run_page(text: str, name: str, namespace: dict | None = None) -> dict:
    """Runs a page in the working folder; returns the namespace of its Python.

    Raises:
        AssertionError: a command failed, or a block printed something else than the page says.
    """
    namespace = {"__name__": "page"} if namespace is None else namespace
    said, last, shell = None, None, Shell(name)
    for block in blocks(text):
        if block.language == "text" and said is not None and not text[last.after : block.begins].strip():
            check_printed(block.code, said, f"{name}:{block.line}")
        said = None
        if block.runs:
            said = _run_python(block, name, namespace) if block.language == "python" else shell.run(block)
            last = block
    return namespace


def _run_python(block: Block, name: str, namespace: dict) -> str:
    code = compile("\n" * (block.line - 1) + block.code, name, "exec")  # so that errors name the page's line
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, namespace)
    return printed.getvalue()


class Shell:
    """Runs the sh blocks of a page; variables that one sets are there in the next.

    Commands of `tfxformer` run in this process, which has loaded TensorFlow already; all else in bash.
    """

    def __init__(self, page: str):
        self.page = page
        self.variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])

    def run(self, block: Block) -> str:
        """What the block prints."""
        printed = ""
        for lines in _commands(block.code):
            own = lines.startswith("tfxformer ")
            printed += self._command(lines, block) if own else self._bash(lines, block)
        return printed

    def _bash(self, lines: str, block: Block) -> str:
        with tempfile.NamedTemporaryFile() as kept:
            script = f'set -aeuo pipefail\n{lines}\nenv -0 > "{kept.name}"\n'
            done = subprocess.run(
                ["bash", "-c", script], input=block.typed, env=self.variables, capture_output=True, text=True
            )
            said = f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
            assert done.returncode == 0, f"{self.page}:{block.line}: {lines}\n{said}"
            found = Path(kept.name).read_text(encoding="utf-8").split("\0")
        self.variables = dict(pair.split("=", 1) for pair in found if "=" in pair)
        return done.stdout

    def _command(self, line: str, block: Block) -> str:
        from typer.testing import CliRunner

        from tfxformer.cli.main import app

        given = re.sub(r"\$(\w+)", lambda match: self.variables[match[1]], line)
        result = CliRunner().invoke(app, shlex.split(given, comments=True)[1:], input=f"{block.typed}\n")
        assert result.exit_code == 0, f"{self.page}:{block.line}: {line}: {result.stderr}\n{result.exception!r}"
        return result.stdout


def _commands(code: str) -> list[str]:
    """The lines of a sh block: each of `tfxformer` by itself, those between them together."""
    found, rest, until = [], [], None
    for line in code.replace("\\\n", " ").splitlines():
        if until is None and line.startswith("tfxformer ") and not re.search(r"&&|\||>", line):
            found += ["\n".join(rest), line]
            rest = []
            continue
        rest.append(line)
        here = re.search(r"<< *'(\w+)'$", line)
        until = here[1] if here else None if line == until else until
    return [lines for lines in [*found, "\n".join(rest)] if lines.strip()]


def check_printed(wanted: str, printed: str, place: str) -> None:
    """Every line that a page shows was printed, in this order, numbers aside; `...` stands for any lines."""
    left = [_without_numbers(line) for line in printed.splitlines()]
    for line in wanted.splitlines():
        plain = _without_numbers(line)
        if plain in ("", "..."):
            continue
        assert plain in left, f"{place} shows {line!r}, which was not printed:\n{printed}"
        left = left[left.index(plain) + 1 :]


def _without_numbers(line: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"-?\d[\d,]*(\.\d*)?(e[+-]?\d+)?", "#", line)).strip()
