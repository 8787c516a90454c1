"""Debian's package index: small files in its form, an apt that delivers or not, and the real one."""

import os
import shutil

import pytest

from tfxformer import samples
from tfxformer.samples import debian_index
from tfxformer.samples.debian_index import Description

PACKAGES = """Package: libzoo1
Source: zoo (1.2-3)
Version: 1.2-3+b1
Description: animals as a library
Description-md5: 0

Package: ant
Version: 1
Depends: libc6,
 libzoo1
Description: an insect
"""
TRANSLATION = """Package: libzoo1
Description-md5: 0
Description-en: animals as a library
 Zoo: holds animals
 and feeds them.
 .
 Second paragraph.

Package: ant
Description-md5: 1
Description-en: an insect

Package: unknown
Description-md5: 2
Description-en: of no package
 Text.
"""
WANTED = [Description("libzoo1", "zoo", "animals as a library", "Zoo: holds animals and feeds them. Second paragraph.")]


def test_descriptions_are_one_line_and_know_their_source(tmp_path):
    (tmp_path / "Packages").write_text(PACKAGES)
    (tmp_path / "Translation-en").write_text(TRANSLATION)
    assert debian_index.read_descriptions(tmp_path) == WANTED


def test_dependencies_are_packages_of_other_sources(tmp_path):
    """Of the fields as deb822(5) and Debian's policy (7.1) have them."""
    stanzas = """Package: zoo
Source: zoo (1.2-3)
Depends: libzoo1 (= 1.2-3), ant:any (>= 2), python3 | pypy,
 libc6 (>= 2.3),libc6
Pre-Depends: dpkg

Package: libzoo1
Source: zoo
Depends: libgcc-s1 [amd64]

Package: ant

Package: libc6
Source: glibc

Package: libgcc-s1
Source: gcc-12

Package: dpkg
Depends: libc6
"""
    (tmp_path / "Packages").write_text(stanzas)
    assert debian_index.read_dependencies(tmp_path) == {
        "ant": [],
        "dpkg": ["libc6"],
        "gcc-12": [],
        "glibc": [],
        "zoo": ["ant", "dpkg", "libc6", "libgcc-s1"],  # python3 is none of these packages, libzoo1 its own
    }


def test_apt_fetches_the_index_into_lists_of_its_own(tmp_path, monkeypatch, capsys):
    programs, lists = tmp_path / "bin", "deb.example.org_debian_dists_bookworm_main"
    programs.mkdir()
    apt = programs / "apt-get"
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TFXFORMER_CACHE", str(tmp_path / "cache"))
    for written in ("#!/bin/sh\necho 'E: no network' >&2\nexit 100\n", "#!/bin/sh\necho 'W: no network' >&2\n"):
        apt.write_text(written)
        apt.chmod(0o755)
        with pytest.raises(RuntimeError, match=r"no network(.|\n)*TFXFORMER_CACHE"):
            samples.debian_descriptions()
    for name, content in (("Packages", PACKAGES), ("Translation-en", TRANSLATION)):
        (tmp_path / name).write_text(content)
    apt.write_text(
        f"""#!/bin/sh
set -e
folder=$(dirname "$2")
grep -q "Dir::State::Lists \\"$folder/lists\\"" "$2"
grep -q "signed-by" "$folder/sources.list"
cp {tmp_path}/Packages "$folder/lists/{lists}_binary-amd64_Packages"
cp {tmp_path}/Translation-en "$folder/lists/{lists}_i18n_Translation-en"
"""
    )
    assert samples.debian_descriptions() == WANTED
    assert "another point release" in capsys.readouterr().err
    apt.unlink()
    assert samples.debian_descriptions() == WANTED  # from the cache
    folder = samples.cache_folder() / "samples" / "debian-index-bookworm"
    assert sorted(path.name for path in folder.iterdir()) == ["Packages", "Translation-en"]


@pytest.mark.samples
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="Debian's apt-get fetches it")
def test_the_real_index_tells_of_every_package():
    rows = samples.debian_descriptions()
    assert len(rows) > 60_000
    assert [row.package for row in rows] == sorted({row.package for row in rows})
    assert all(row.source and row.synopsis and row.text for row in rows)
    needed = samples.debian_dependencies()
    assert "libc6" in needed["diodon"] and "diodon" not in needed["diodon"]
    assert set().union(*needed.values()) > {"python3", "perl"}
    clipboard = next(row for row in rows if row.package == "diodon")
    assert clipboard.synopsis == "GTK+ Clipboard manager"
    assert clipboard.text.startswith("Diodon is a lightweight clipboard manager for Linux")
