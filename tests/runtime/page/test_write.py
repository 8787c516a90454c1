"""What `write_page` writes and refuses; tests/clients/test_browser.py opens its pages in a browser."""

import json
import re
import stat
from pathlib import Path

import litert_files
import pytest
import tokenizers

from tfxformer import runtime
from tfxformer.runtime.page import vendor, write
from tfxformer.runtime.page.facts import tokenizer_facts
from tfxformer.text import Tokenizer


@pytest.fixture
def packages(tmp_path):
    """A node_modules folder whose packages hold nothing."""
    for package in (*vendor.PACKAGES, vendor.CHAT):
        for pattern in (*package.files, "package.json", "LICENSE"):
            path = tmp_path / "node_modules" / package.name / pattern.replace("*", "js")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"version": package.version}), encoding="utf-8")
    return tmp_path / "node_modules"


@pytest.fixture
def no_programs(monkeypatch, tmp_path):
    """Neither npm nor node."""
    monkeypatch.setenv("PATH", str(tmp_path))


def imported(path):
    """Files of the page that a module imports, and packages."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"""(?:from|import|import\()\s*["']([^"'$]+)["']""", text)


def test_page_has_all_that_it_loads(packages, no_programs, tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "mine.txt").write_text("stays", encoding="utf-8")
    (tmp_path / "page" / "lib").mkdir()
    (tmp_path / "page" / "lib" / "older.js").write_text("goes", encoding="utf-8")
    report = runtime.write_page(litert_files.decoder(), tmp_path / "page", packages)
    page = tmp_path / "page"
    assert (page / "mine.txt").exists()
    assert not (page / "lib" / "older.js").exists()
    assert (page / "model.tflite").read_bytes() == litert_files.decoder().read_bytes()
    known = json.loads(re.search(r'importmap">(.*?)</script>', (page / "index.html").read_text(), re.S)[1])["imports"]
    assert all((page / path).is_file() for path in known.values())
    for script in [page / "app.js", *(page / "lib").iterdir(), *(page / "tasks").iterdir()]:
        for name in imported(script):
            assert name in known or (script.parent / name).is_file(), f"{script.name} imports {name}"
    assert {part.name for part in (page / "tasks").iterdir()} >= {f"{name}.js" for name in ("classify", "tag", "write")}
    licences = {path.parent.relative_to(page / "vendor").as_posix() for path in page.rglob("LICENSE")}
    assert licences == {package.name for package in (*vendor.PACKAGES, vendor.CHAT)}
    assert report.task == "causal-lm"
    assert report.checked_texts is None
    assert "not compared" in str(report)
    assert report.bytes == sum(path.stat().st_size for path in page.rglob("*") if path.is_file()) - len("stays")
    assert json.dumps(report.to_dict())


@pytest.mark.extra
def test_page_of_a_bundle(packages, no_programs, tmp_path):
    pytest.importorskip("litert_lm_builder")
    runtime.write_page(litert_files.bundle(), tmp_path / "page", packages)
    assert (tmp_path / "page" / "model.tflite").read_bytes() == litert_files.decoder().read_bytes()
    assert json.loads((tmp_path / "page" / "model.json").read_text(encoding="utf-8"))["task"] == "causal-lm"


def test_page_names_no_other_server():
    for path in write.STATIC.rglob("*"):
        if path.is_file():
            assert not re.search(r"(https?:)?//[\w.-]+\.\w+/", path.read_text(encoding="utf-8")), path


def test_missing_npm_and_packages_are_said(packages, no_programs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Node\.js.*--packages.*npm install @litertjs/core@"):
        runtime.write_page(litert_files.classifier("float32"), tmp_path / "page")
    next((packages / "@litertjs" / "core" / "dist").iterdir()).unlink()
    with pytest.raises(FileNotFoundError, match=r"has no @litertjs/core/dist/index\.js"):
        runtime.write_page(litert_files.classifier("float32"), tmp_path / "page", packages)
    assert not (tmp_path / "page").exists()


def test_what_npm_says_is_shown(monkeypatch, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'ENOTFOUND registry' >&2\nexit 1\n", encoding="utf-8")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(RuntimeError, match=r"ENOTFOUND registry.*--packages"):
        runtime.write_page(litert_files.classifier("float32"), tmp_path / "page")


def test_texts_that_differ_are_told(packages, tmp_path):
    report = write.PageReport("a page", "text-classification", 2_000_000, 1_000_000, {}, 14, ("Où?",))
    assert "1 of 14" in str(report)
    assert "'Où?'" in str(report)
    assert "--directory 'a page'" in str(report)


def test_files_without_a_task_are_refused(plain_model, packages, tmp_path):
    from tfxformer import export

    export.export_litert(plain_model, tmp_path / "plain.tflite", "float32")
    with pytest.raises(ValueError, match="no task and tokenizer"):
        runtime.write_page(tmp_path / "plain.tflite", tmp_path / "page", packages)


def test_tokenizers_of_sentencepiece_models_are_refused():
    parts = json.loads(litert_files.task().tokenizer.to_json())
    parts["config"]["tfxformer"] = {"class": "T5Tokenizer", "rows": 10}
    with pytest.raises(ValueError, match="SentencePiece"):
        tokenizer_facts(Tokenizer.from_json(json.dumps(parts)), "file.tflite")


def with_template(single, pair):
    """A tokenizer of words with special tokens around texts."""
    words = {word: index for index, word in enumerate(["<s>", "</s>", "[UNK]", "a", "the", "good", "film"])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return Tokenizer(backend.to_str())


@pytest.mark.parametrize(
    ("single", "pair"),
    [
        ("<s> $A </s>", "<s> $A </s> </s> $B:1 </s>:1"),
        ("$A", "$A $B"),
        ("$A:2 </s>:2 <s>:3", "$A:1 </s>:0 $B:0 </s>:1 <s>:2"),
    ],
)
def test_special_tokens_stand_where_the_tokenizer_puts_them(single, pair):
    tokenizer = with_template(single, pair)
    known, texts = tokenizer_facts(tokenizer, "x"), ("the good film", "a film")
    first, second = tokenizer.ids(texts, special_tokens=False)
    for template, pairs, segments in (("single", None, [known["segments"]["single"]]), ("pair", [texts[1]], None)):
        encoding = tokenizer.encode(texts[:1], pairs)
        segments, ids, found = segments or known["segments"]["pair"], [], []
        for part in known[template]:
            row = {"A": first, "B": second}.get(part) if isinstance(part, str) else [part[0]]
            segment = segments["AB".index(part)] if isinstance(part, str) else part[1]
            ids, found = [*ids, *row], [*found, *[segment] * len(row)]
        assert ids == encoding.token_ids[0].tolist()
        assert found == encoding.segment_ids[0].tolist()


def test_scripts_are_package_data():
    setup = Path(write.__file__).parents[3] / "setup.py"
    patterns = re.search(r'"tfxformer\.runtime\.page": (\[.*?\])', setup.read_text(encoding="utf-8"))[1]
    folder = Path(write.__file__).parent
    found = {path for pattern in json.loads(patterns) for path in folder.glob(pattern) if path.is_file()}
    assert found == {path for path in folder.rglob("*") if path.suffix in (".html", ".css", ".js", ".mjs")}
