"""The documentation site: built without a warning, every link leads somewhere, nothing is loaded from elsewhere."""

import importlib.util
import inspect
import os
import re
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import public_names
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("sphinx", "myst_parser", "furo", "sphinx_copybutton")
ABSENT = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.road,
    pytest.mark.extra,
    pytest.mark.skipif(bool(ABSENT), reason=f'{", ".join(ABSENT)} not installed: pip install -e ".[docs]"'),
]
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class Found(HTMLParser):
    """The ids of a page, where its links lead, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADING and LOADING[tag] in given:
            self.loads.append(given[LOADING[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; a warning is an error, and proxies that lead nowhere keep the network away."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    command += ["-d", str(folder / "doctrees"), "-c", "docs", ".", str(folder / "html")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **nowhere}, capture_output=True, text=True)
    warnings = [line for line in done.stderr.splitlines() if re.search("WARNING|ERROR", line) and "absl" not in line]
    assert done.returncode == 0 and not warnings, "\n".join(warnings) or done.stderr[-3000:]
    return folder / "html"


@pytest.fixture(scope="module")
def html(site):
    """Path of a page -> what is in it."""
    return {path: Found(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_link_leads_to_a_page_and_a_place_on_it(html):
    broken = []
    for path, found in html.items():
        for link in found.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or link in ("", "#") or path.name in ("search.html", "genindex.html"):
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            there = target.exists() and (not parts.fragment or target not in html or parts.fragment in html[target].ids)
            broken += [] if there else [f"{path.name}: {link}"]
    assert not broken


def test_nothing_is_loaded_from_elsewhere(html, site):
    loaded = [f"{path.name}: {what}" for path, found in html.items() for what in found.loads if "//" in what]
    styles = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.css")}
    loaded += [
        f"{path.name}: {what}" for path, text in styles.items() for what in re.findall(r"url\(\"?(http[^)]*)", text)
    ]
    assert not loaded


def test_every_public_name_is_documented(html, site):
    """On a page of the reference, with more than a signature; so are the arguments' names."""
    ids = {one for path, found in html.items() if path.parent.name == "reference" for one in found.ids}
    named = [(f"{room}.{name}", value) for room, name, value in public_names.public_names()]
    missing = [full for full, value in named if not inspect.ismodule(value) and full not in ids]
    assert not missing and len(ids) > len(named)
