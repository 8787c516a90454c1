"""What editors and type checkers see: the marker, the names that are imported when used, and what constructors give."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REVEALED = {
    'TextClassifier.from_pretrained("folder")': "TextClassifier",
    'TextEmbedder.from_pretrained("folder")': "TextEmbedder",
    'CausalLM.from_pretrained("folder").generate(["text"])': "list[str]",
    'tfxformer.build("bert-base")': "Backbone",
    'tfxformer.from_pretrained("folder")': "Backbone",
    'tfxformer.text.Tokenizer.from_pretrained("folder")': "Tokenizer",
    'tfxformer.export.LiteRTModel("model.tflite")': "LiteRTModel",
}


def reexported(package: str) -> dict:
    """Name -> module of what `package/__init__.py` imports for type checkers only."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    found = {}
    for node in ast.walk(blocks[0]):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, f"{package}: `import {alias.name} as {alias.name}` re-exports"
                found[alias.name] = node.module
    return found


@pytest.mark.parametrize("package", ["tfxformer", "tfxformer.export"])
def test_names_imported_when_used_are_known_to_editors(package):
    module = importlib.import_module(package)
    known = reexported(package)
    assert sorted(known) == sorted(module.__all__)
    for name, source in known.items():
        there = importlib.import_module(source)
        if not hasattr(there, name):
            there = importlib.import_module(f"{source}.{name}")  # a room
            assert getattr(module, name) is there
        else:
            assert getattr(module, name) is getattr(there, name)


def test_the_package_says_that_it_has_types():
    assert (ROOT / "tfxformer/py.typed").is_file()
    assert '"tfxformer": ["py.typed"' in (ROOT / "setup.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_checker_knows_what_constructors_give(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    lines = ["import tfxformer", "from tfxformer.tasks import CausalLM, TextClassifier, TextEmbedder"]
    script.write_text("\n".join([*lines, *(f"reveal_type({one})" for one in REVEALED)]), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), str(script)]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
    notes = [line.split('"')[1].rpartition(".")[2] for line in said.splitlines() if "Revealed type" in line]
    assert dict(zip(REVEALED, notes, strict=True)) == REVEALED, said
