"""The npm packages that a page is made with: the user's npm brings them, or a folder that has them already."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """An npm package.

    Attributes:
        name: in the registry.
        version: that pages were tested with.
        files: patterns of what a page reads.
    """

    name: str
    version: str
    files: tuple[str, ...]


# Of LiteRT.js' builds, those that a browser without and with relaxed SIMD takes, and the one of several threads.
_BUILDS = ("compat", "threaded")
RUNTIME = Package(
    "@litertjs/core",
    "2.5.3",
    ("dist/index.js", "wasm/litert_wasm_internal.*", *(f"wasm/litert_wasm_{build}_internal.*" for build in _BUILDS)),
)
PACKAGES = (
    RUNTIME,
    Package("@litertjs/wasm-utils", "2.5.3", ("dist/index.js",)),
    Package("@huggingface/tokenizers", "0.2.0", ("dist/tokenizers.mjs",)),
)
CHAT = Package("@huggingface/jinja", "0.5.11", ("dist/index.js",))  # renders chat templates
_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "package.json")


@contextlib.contextmanager
def node_modules(wanted: tuple[Package, ...], folder: str | Path | None) -> Iterator[Path]:
    """A folder with the packages: the given one, or a temporary one that npm fills.

    Raises:
        FileNotFoundError: npm is not there, or a package is not in the given folder. RuntimeError: npm fails.
    """
    if folder is not None:
        yield _given(wanted, Path(folder).expanduser())
        return
    npm = shutil.which("npm")
    line = " ".join(f"{package.name}@{package.version}" for package in wanted)
    if npm is None:
        raise FileNotFoundError(
            "npm, which fetches the page's JavaScript, is not on the PATH: install Node.js (nodejs.org), or give a "
            f"node_modules folder as --packages, made on another machine by: npm install {line}"
        )
    with tempfile.TemporaryDirectory() as place:
        Path(place, "package.json").write_text('{"private": true}', encoding="utf-8")
        options = ("--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--loglevel=error")
        done = subprocess.run(
            [npm, "install", *options, *line.split()], cwd=place, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise RuntimeError(
                f"npm install {line} failed: {' '.join(said)} Without a network, give a node_modules folder with these "
                "packages as --packages."
            )
        yield _given(wanted, Path(place, "node_modules"))


def _given(wanted: tuple[Package, ...], folder: Path) -> Path:
    for package in wanted:
        for pattern in package.files:
            if not list((folder / package.name).glob(pattern)):
                raise FileNotFoundError(
                    f"{folder} has no {package.name}/{pattern}: wanted a node_modules folder with "
                    f"{', '.join(f'{one.name}@{one.version}' for one in wanted)}."
                )
    return folder


def copy(wanted: tuple[Package, ...], modules: Path, vendor: Path) -> dict[str, str]:
    """Copies what a page reads of each package, and its licence; returns {name: version}."""
    versions = {}
    for package in wanted:
        source = modules / package.name
        for pattern in (*package.files, *_LICENCES):
            for path in sorted(source.glob(pattern)):
                target = vendor / package.name / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        versions[package.name] = json.loads((source / "package.json").read_text(encoding="utf-8"))["version"]
    return versions
