"""What Debian's package index says of its packages: a line and a longer text each, fetched and checked by apt.

The index changes with each point release of Debian, so it cannot be pinned as archives are: apt checks the signatures
and hashes of the archive, and a notice says where the index is another than that whose figures are told.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tfxformer.files import replacing_folder

SUITE, KEYS = "bookworm", "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCE = f"deb [arch=amd64 signed-by={KEYS}] http://deb.debian.org/debian {SUITE} main\n"
# File in the cache -> how the name that apt gives it ends.
FILES = {"Packages": "_main_binary-amd64_Packages", "Translation-en": "_main_i18n_Translation-en"}
MEASURED = {
    "Packages": "515e692f2c4121c6fcec444ef100cc18f79a991910615f3a88c8b7becfc94d2f",
    "Translation-en": "62f59c3cdca9786e4f7adf9002f9f5729a684adcb4667e58e448dec9b5a46c7f",
}
_SETTINGS = """Dir::State::Lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Acquire::GzipIndexes "false";
#clear Acquire::Languages;
Acquire::Languages {{ "en"; }};
"""


class Description(NamedTuple):
    """A package: its name, that of the source it is built from, the synopsis, and the text behind it as one line."""

    package: str
    source: str
    synopsis: str
    text: str


def fetch(folder: Path) -> Path:
    """The folder with both files of the index, downloaded where it is not there.

    Raises:
        RuntimeError: where there is no apt, no network or no keyring of Debian.
    """
    if not folder.is_dir():
        print(f"Fetching Debian's index of {SUITE}, 15 MB, by apt. Cache: {folder}", file=sys.stderr, flush=True)
        with replacing_folder(folder) as new:
            _update(new / ".apt", new)
            shutil.rmtree(new / ".apt")
    for name, measured in MEASURED.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != measured:
            print(
                f"Note: {name} of {SUITE} is of another point release than that whose figures are told; what is "
                "measured with it may differ a little.",
                file=sys.stderr,
            )
    return folder


def _update(apt: Path, folder: Path) -> None:
    """Lets apt fetch the index into lists of its own, and puts its two files into `folder`."""
    for inner in ("lists/partial", "cache/archives/partial"):
        (apt / inner).mkdir(parents=True)
    (apt / "sources.list").write_text(SOURCE, encoding="utf-8")
    (apt / "apt.conf").write_text(_SETTINGS.format(folder=apt.absolute()), encoding="utf-8")
    try:
        run = subprocess.run(
            ["apt-get", "-c", str(apt / "apt.conf"), "update", "--quiet"], capture_output=True, text=True, check=False
        )
        said = run.stderr
    except OSError as error:
        said = str(error)
    for name, ending in FILES.items():
        found = [path for path in (apt / "lists").iterdir() if path.name.endswith(ending)]
        if not found:
            raise RuntimeError(
                f"apt-get did not deliver {name} of Debian's {SUITE}:\n{said.strip()}\nIt needs apt, the network and "
                f"{KEYS} (package debian-archive-keyring); or set TFXFORMER_CACHE to a folder that holds it already."
            )
        shutil.move(found[0], folder / name)


def read_descriptions(folder: Path) -> list[Description]:
    """Every package that has a text behind its synopsis, by name."""
    sources = {}
    for entry in _stanzas(folder / "Packages"):
        sources.setdefault(entry["Package"], _source(entry))
    found = {}
    for entry in _stanzas(folder / "Translation-en"):
        synopsis, _, text = entry["Description-en"].partition("\n")
        text = " ".join(" ".join(line for line in text.split("\n") if line.strip() != ".").split())
        if entry["Package"] in sources and synopsis.strip() and text:
            row = Description(entry["Package"], sources[entry["Package"]], synopsis.strip(), text)
            found.setdefault(row.package, row)
    return [found[package] for package in sorted(found)]


def read_dependencies(folder: Path) -> dict[str, list[str]]:
    """By source, the packages of other sources that its packages need to be installed, sorted.

    Of alternatives ("a | b") the first counts, and no name that is none of a package (virtual ones).
    """
    entries = list(_stanzas(folder / "Packages"))
    sources: dict[str, str] = {}
    for entry in entries:
        sources.setdefault(entry["Package"], _source(entry))
    found: dict[str, set[str]] = {}
    for entry in entries:
        needed = found.setdefault(_source(entry), set())
        for field in ("Pre-Depends", "Depends"):
            for dependency in entry.get(field, "").split(","):
                name = re.split(r"[|(:\s]", dependency.strip(), maxsplit=1)[0]
                if name in sources and sources[name] != _source(entry):
                    needed.add(name)
    return {source: sorted(found[source]) for source in sorted(found)}


def _source(entry: dict[str, str]) -> str:
    """The source that a package is built from, without its version."""
    return entry.get("Source", entry["Package"]).split(" ")[0]


def _stanzas(path: Path) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file: field -> its value, further lines and all (deb822(5))."""
    for stanza in path.read_text(encoding="utf-8").strip("\n").split("\n\n"):
        fields = (field.partition(":") for field in re.split(r"\n(?=\S)", stanza))
        yield {name: value.removeprefix(" ") for name, _, value in fields}
