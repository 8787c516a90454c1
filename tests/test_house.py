"""The house: who imports whom, the size of rooms, what importing costs, and that what is public is explained."""

import ast
import functools
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tfxformer"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
FLOORS = ("text", "layers", "training", "data", "models", "checkpoints", "generation", "compression", "tasks")
# Folder -> the folders it may import besides itself.
MAY_IMPORT = {
    "text": (),
    "layers": (),
    "training": (),
    "data": ("text",),
    "models": ("layers",),
    "generation": ("text", "layers", "models"),
    "checkpoints": ("text", "layers", "models"),
    "compression": ("layers", "models", "checkpoints", "training"),
    "tasks": ("text", "layers", "training", "data", "models", "checkpoints", "generation"),
    "runtime": ("text", "data"),
    "export": (*FLOORS, "runtime"),
    "cli": (*FLOORS, "runtime", "export", "recipes", "samples"),
    "recipes": (*FLOORS, "runtime", "export", "samples"),
    "samples": ("checkpoints",),
}
# The ground: modules of the package's own folder that everything stands on; each imports only those before it.
GROUND = (
    *(
        "lazy",
        "registered",
        "extras",
        "backend",
        "arguments",
        "json_files",
        "files",
        "figures",
        "keras_files",
        "numpy_ops",
        "ranking",
    ),
)
ENGINE = "compression/pruning/tfmot_engine.py"  # the one file behind which tfmot stays
LAZY = (
    "tfmot",
    "tensorflow_model_optimization",
    "torch",
    "transformers",
    "jax",
    "tensorflow_text",
    "keras_hub",
    "keras_tuner",
    "gguf",
)


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room(path: Path) -> str:
    """The folder a file belongs to, or its own name at the top level."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(source(path))


@functools.cache
def imports(path: Path) -> list[tuple[str, int, bool]]:
    """(module, line, whether at the top level) of every import in a file, as absolute names."""
    top = set(map(id, tree(path).body))
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the whole name"
            found.append((node.module, node.lineno, id(node) in top))
            if node.module.split(".")[0] == "tfxformer":
                found += [(f"{node.module}.{alias.name}", node.lineno, id(node) in top) for alias in node.names]
    return found


def none_of(findings) -> None:
    """Fails with every finding, a line each."""
    findings = list(findings)
    assert not findings, "\n" + "\n".join(findings)


def upward(path: Path):
    here = room(path)
    if here not in (*MAY_IMPORT, *GROUND):
        yield f"{here} has no floor in design.md"
        return
    for module, line, _ in imports(path):
        parts = module.split(".")
        if parts[0] != "tfxformer" or len(parts) == 1:
            continue
        there = parts[1]
        below = GROUND[: GROUND.index(here)] if here in GROUND else (*GROUND, *MAY_IMPORT[here])
        if not (there == here or there in below or there == "__version__"):
            yield f"{name(path)}:{line} imports {module}: {here} may import {below or 'nothing of ours'}"


def test_imports_go_downward_only():
    none_of(finding for path in FILES if path != PACKAGE / "__init__.py" for finding in upward(path))


def needed(path: Path, modules) -> set[str]:
    """The modules of ours whose code must have run before that of a file; a package is its `__init__`."""
    found = set()
    for node in tree(path).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {one if one in modules else node.module for one in inner}
    return found & set(modules)


def circles():
    """Modules that reach themselves by imports at the top level, as one line each."""
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in FILES]
    modules = {module.removesuffix(".__init__"): path for module, path in zip(names, FILES, strict=True)}
    reached = {module: needed(path, modules) - {module} for module, path in modules.items()}
    for _ in range(len(modules)):  # modules that import none of those that are left are in no circle
        reached = {module: there & set(reached) for module, there in reached.items() if there & set(reached)}
    return [f"{module} imports {', '.join(sorted(there))}" for module, there in sorted(reached.items())]


def test_no_imports_run_in_a_circle():
    none_of(circles())


def test_folders_have_room():
    """At most 12 entries at a folder's own level; the package's own folder has the rooms besides."""
    for folder in sorted({path.parent for path in FILES}):
        entries = list(folder.glob("*.py"))
        if folder != PACKAGE:
            entries += [inner for inner in folder.iterdir() if list(inner.glob("*.py"))]
        assert len(entries) <= 12, f"{name(folder)} has {len(entries)} entries"


def too_early(path: Path):
    for module, line, at_top in imports(path):
        first = module.split(".")[0]
        if at_top and first in LAZY:
            yield f"{name(path)}:{line} imports {first} at the top"
        if first in ("tensorflow_model_optimization", "tf_keras"):
            yield f"{name(path)}:{line}: that is {ENGINE}'s"
        if at_top and module.replace(".", "/").endswith(ENGINE.removesuffix(".py")):
            yield f"{name(path)}:{line} imports tfmot's engine at the top"


def test_heavy_packages_are_imported_where_used():
    none_of(finding for path in FILES if name(path) != ENGINE for finding in too_early(path))


def too_long(path: Path):
    lines = len(source(path).splitlines())
    if lines > 400:
        yield f"{name(path)} has {lines} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if lines > 60:
                yield f"{name(path)}:{node.lineno} {node.name} has {lines} lines"


def test_files_and_functions_are_short():
    none_of(finding for path in FILES for finding in too_long(path))


def unreadable_by_autograph(path: Path):
    """AutoGraph knows no `:=`, and says so at length on the terminal of whoever generates a text."""
    if room(path) in ("layers", "generation", "models") and "config" not in path.parts:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.NamedExpr):
                yield f"{name(path)}:{node.lineno} has :=, in what TensorFlow traces"


def test_autograph_can_read_what_is_traced():
    none_of(finding for path in FILES for finding in unreadable_by_autograph(path))


def public(body, prefix=""):
    """Public classes and functions of a module, and methods of more than a few lines that override nothing."""
    for node in body:
        if "overload" in [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", ())]:
            continue  # another signature of what follows
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            if not prefix or node.end_lineno - node.lineno > 4:
                yield prefix + node.name, node
            if isinstance(node, ast.ClassDef) and not node.bases:
                yield from public(node.body, f"{prefix}{node.name}.")


def unexplained(path: Path):
    if not ast.get_docstring(tree(path)):
        yield f"{name(path)} does not say what it is"
    if room(path) == "cli":  # what a command does is said by its --help
        return
    for qualified, node in public(tree(path).body):
        if not ast.get_docstring(node):
            yield f"{name(path)}:{node.lineno} {qualified} has no docstring"


def _named_in_code(path: Path, names) -> list[str]:
    """Which of some names stand in a file's code, as strings or as words of identifiers; docstrings may have them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    owners = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    documented = {id(node.body[0].value) for node in owners if node.body and isinstance(node.body[0], ast.Expr)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            found.append(node.value)
        found += [getattr(node, key, None) for key in ("id", "attr", "arg")]
        found += [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
    words = {text.lower() for text in found if isinstance(text, str)}
    return [name for name in names if any(re.fullmatch(rf"(.*_)?{re.escape(name)}(_.*)?", word) for word in words)]


def test_only_pages_know_a_family():
    """A layer, a model or a task has switches, whoever they are of; presets are configs by name."""
    from tfxformer.checkpoints.families import FAMILIES

    knowing = ("layers", "models", "tasks", "generation", "compression", "training", "export")
    none_of(
        f"{name(path)} names the family {family}"
        for path in FILES
        if room(path) in knowing and path.name != "presets.py"
        for family in _named_in_code(path, FAMILIES.keys() - {"new"})  # a word like any other
    )
    assert _named_in_code(PACKAGE / "models" / "presets.py", ["bert", "nobody"]) == ["bert"]


def test_a_family_is_a_short_page():
    from tfxformer.checkpoints.family import Family

    pages, seen = (PACKAGE / "checkpoints" / "families").glob("*/**/*.py"), 0
    for path in sorted(pages):
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        families = {id(value) for value in vars(module).values() if isinstance(value, Family)}
        seen += len(families)
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 130 * max(1, len(families)), f"{path.name} has {lines} lines for {len(families)} families"
    assert seen > 40


def test_what_is_public_is_explained():
    none_of(finding for path in FILES for finding in unexplained(path))


def stubs(path: Path):
    if found := re.search(r"\b(TODO|FIXME|XXX)\b", source(path)):
        yield f"{name(path)} says {found.group()}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            if all(isinstance(part, ast.Pass) for part in node.body):
                yield f"{name(path)}:{node.lineno} hides an error"
            if node.type is None:
                yield f"{name(path)}:{node.lineno} catches everything, interrupts too"


def test_no_stubs():
    none_of(finding for path in FILES for finding in stubs(path))


def run(code: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TF_", "KERAS_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_is_cheap_and_harmless():
    code = """
import json, os, sys
before = dict(os.environ)
import tfxformer
heavy = ("tensorflow", "keras", "numpy", "tensorflow_model_optimization", "torch", "jax", "transformers", "tokenizers")
print(json.dumps({"changed": before != dict(os.environ), "imported": [name for name in heavy if name in sys.modules]}))
"""
    assert json.loads(run(code)) == {"changed": False, "imported": []}


def test_using_a_model_imports_no_optional_package():
    code = f"""
import json, os, sys
before = dict(os.environ)
import keras, tensorflow
theirs = set(sys.modules)  # TensorFlow imports jax itself where it is installed
import tfxformer
from tfxformer import checkpoints, compression, data, generation, layers, models, tasks, text, training
changed = sorted(key for key in os.environ if key.startswith("TF_USE") or key.startswith("KERAS")
                 if os.environ[key] != before.get(key))
print(json.dumps([changed, [name for name in {LAZY!r} if name in set(sys.modules) - theirs]]))
"""
    assert json.loads(run(code).splitlines()[-1]) == [[], []]


def test_public_names_exist():
    import tfxformer

    for public_name in tfxformer.__all__:
        assert getattr(tfxformer, public_name) is not None
        assert public_name in dir(tfxformer)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tfxformer.nothing  # noqa: B018
    for folder in ("checkpoints", "generation", "layers", "models", "tasks", "text", "training"):
        module = importlib.import_module(f"tfxformer.{folder}")
        assert len(module.__all__) == len(set(module.__all__))
        assert all(getattr(module, one) is not None for one in module.__all__)


def test_nothing_names_a_place_outside_the_project():
    # Written in parts, so that this file does not name them itself.
    outside = re.compile("|".join(("/wo" + "rk/", "/tmp" + "/w/", r"\.\./sha" + "red")))
    for pattern in ("*.py", "*.md", "*.toml", "*.json", "*.cfg", "run", "full"):
        for path in ROOT.rglob(pattern):
            if path.is_file() and not set(path.relative_to(ROOT).parts) & {".git", "build", "tfxformer.egg-info"}:
                found = outside.search(path.read_text(encoding="utf-8", errors="replace"))
                assert not found, f"{path.relative_to(ROOT)} names {found.group()}"
