"""The table of public names is current, and each name is explained and used."""

import ast
import inspect
import re
import textwrap

import keras
import public_names
import pytest

ARRAYS = ("inputs", "ids", "token_ids", "logits", "padding_mask", "scores", "weights", "arrays")
SHAPE = re.compile(r"\[[A-Z0-9.][^\]]*\]|\[(tokens|texts|vocabulary|kept|steps|blocks)[^\]]*\]|any shape|scalar")
SOURCES = (*(public_names.ROOT.glob("*.md")), *(public_names.ROOT / "docs").glob("*.md"))
NAMES = [(room, name, value) for room, name, value in public_names.public_names() if not inspect.ismodule(value)]


def own_source(value) -> str:
    """A function, or what constructs a class: the parts of it that this package wrote."""
    if not inspect.isclass(value):
        return inspect.getsource(value)
    made = [vars(value)[one] for one in ("__init__", "__post_init__", "__new__") if one in vars(value)]
    ours = [one for one in made if getattr(one, "__module__", "").startswith("tfxformer") and inspect.isfunction(one)]
    return "\n".join(
        textwrap.dedent(inspect.getsource(one)) for one in ours if "<string>" not in one.__code__.co_filename
    )


def explained(value) -> str:
    """All that the docstrings of a name say of what it takes, and what its methods give back."""
    parts = [value.__doc__ or "", str(getattr(value, "__annotations__", ""))]
    if inspect.isclass(value):
        parts += [str(getattr(one, "__annotations__", "")) for one in vars(value).values()]
        parts += [getattr(vars(value)[one], "__doc__", "") or "" for one in ("__init__", "call") if one in vars(value)]
    return "\n".join(parts)


def test_the_table_is_current():
    assert public_names.PAGE.read_text(encoding="utf-8") == public_names.page(), "python tests/public_names.py --write"


def test_each_name_says_what_it_is():
    assert not [f"{room}.{name}" for room, name, value in NAMES if not public_names.explanation(room, name, value)]


def test_what_raises_says_so():
    silent = []
    for room, name, value in NAMES:
        if public_names.kind(value) not in ("function", "class"):
            continue
        raising = any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(own_source(value))))
        if raising and not re.search(r"Error|[Rr]efuse", explained(value)):
            silent.append(f"{room}.{name}")
    assert not silent


def test_what_takes_arrays_says_their_shapes():
    silent = []
    for room, name, value in NAMES:
        taken = public_names.signature(value) if public_names.kind(value) == "function" else None
        arrays = taken is not None and set(taken.parameters) & set(ARRAYS)
        layer = inspect.isclass(value) and issubclass(value, keras.layers.Layer) and not issubclass(value, keras.Model)
        if (arrays or layer) and not SHAPE.search(explained(value)):
            silent.append(f"{room}.{name}")
    assert not silent


@pytest.fixture(scope="module")
def written():
    """What may use a name: pages, applications, benchmarks, tests, and the docstrings of other public names."""
    paths = [path for path in SOURCES if path != public_names.PAGE]
    for folder in ("applications", "benchmarks", "tests"):
        paths += [path for kind in ("*.py", "*.md") for path in (public_names.ROOT / folder).rglob(kind)]
    return {path: path.read_text(encoding="utf-8") for path in paths}


def test_each_name_is_used(written):
    """On a page, in an application, a benchmark or a test; or it is what another public name gives back."""
    text = "\n".join(written.values())
    told = {name: explained(value) for _, name, value in NAMES}
    unused = [
        f"{room}.{name}"
        for room, name, _ in NAMES
        if not re.search(rf"\b{name}\b", text)
        and not any(re.search(rf"\b{name}\b", said) for other, said in told.items() if other != name)
    ]
    assert not unused
