"""A Sphinx extension: the API reference, a page for each module of the table of public names.

The pages are written into docs/reference before Sphinx reads its sources; git ignores them. Signatures are those of the
table (tests/public_names.py), texts the docstrings. On every page, a name in backticks that is public links to it.
"""

from __future__ import annotations

import inspect
import re
from collections import namedtuple
from pathlib import Path

import public_names
from docutils import nodes
from sphinx import addnodes

FOLDER = Path(__file__).parent / "reference"
MARKUP = re.compile(r"(`[^`\n]+`|``.+?``)|([*|\\])|(?<=\w)(_)(?=\W|$)")
SECTION = re.compile(r"(Args|Arguments|Attributes|Call|Examples?|Raises|Returns|Yields|Note):")
TUPLE_FIELD = type(namedtuple("Pair", "first").first)
DIRECTIVES = {"class": "autoclass", "exception": "autoexception", "function": "autofunction"}


def documented_names() -> list[str]:
    """Every public name that is no module, as `tfxformer.tasks.TextClassifier`."""
    return [f"{room}.{name}" for room, name, value in public_names.public_names() if not inspect.ismodule(value)]


def pages() -> dict[str, str]:
    """File name -> text of every page of the reference."""
    rooms: dict[str, list[str]] = {}
    for room, name, value in public_names.public_names():
        rooms.setdefault(room, [_title(room, "="), public_names.importlib.import_module(room).__doc__])
        rooms[room].append(_entry(room, name, value))
    found = {f"{room}.rst": "\n\n".join(parts) + "\n" for room, parts in rooms.items()}
    lines = "\n".join(f"   {room}" for room in rooms)
    found["index.rst"] = f"{_title('API reference', '=')}\n\n{INTRODUCTION}\n.. toctree::\n   :maxdepth: 2\n\n{lines}\n"
    return found


INTRODUCTION = """All that may be imported, by module. The shape letters: B batch, S query length, T key length,
N heads, G key/value heads, H head width, D model width, F feed-forward width, V vocabulary, L layers, C labels.
"""


def _home(value) -> str:
    """The room that explains a class or a function which is public in two: the one that it is defined in."""
    rooms = [room for room, _, one in public_names.public_names() if one is value]
    return next((room for room in rooms[::-1] if value.__module__.startswith(f"{room}.")), rooms[0])


def _title(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def _entry(room: str, name: str, value) -> str:
    kind = public_names.kind(value)
    if kind == "module":
        return f":doc:`{room}.{name}`: {value.__doc__.partition(chr(10))[0]}"
    home = room if kind == "constant" else _home(value)
    if home != room:
        directive = "function" if kind == "function" else "class"
        return f".. py:{directive}:: {room}.{name}\n\n   The same as `{home}.{name}`."
    if kind == "constant":
        return f".. py:data:: {room}.{name}\n\n   {escaped(public_names.explanation(room, name, value))}"
    members = "\n   :members:" if kind == "class" else ""
    return f".. {DIRECTIVES[kind]}:: {room}.{name}{members}"


def write_pages(app) -> None:
    """Writes what has changed, so that Sphinx reads that again and no more."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def signature(app, what, name, value, options, given, returns):
    """The arguments as the table of public names has them."""
    if what in ("class", "function") and name in app.tfxformer_names:
        return f"({public_names.arguments(value)})", ""
    return None


def skip_field(app, what, name, value, skip, options):
    """Leaves out a named tuple's fields: Python says of each no more than its number, their class explains them."""
    return True if isinstance(value, TUPLE_FIELD) else None


def docstring(app, what, name, value, options, lines) -> None:
    """Our docstrings as reStructuredText: examples are code, and signs that mean something there mean themselves.

    Code is what stands below "Example:", between fences, and in indented paragraphs outside of sections.
    """
    found, code = [], None  # the margin of the code that is being read
    in_section = fenced = False
    for line in lines:
        margin, text = re.match(r"( *)(.*)", line).groups()
        if text.startswith("```"):
            fenced = not fenced
            code = margin if fenced else None
            found += ["", f"{margin}.. code-block:: {text[3:] or 'text'}", ""] if fenced else [""]
            continue
        if fenced:
            found.append(f"    {line}")
            continue
        if code is not None and text and len(margin) < len(code):
            code = None
            found.append("")
        if code is None and SECTION.fullmatch(text):
            in_section = not text.startswith("Example")
            if not in_section:
                code = f"{margin}    "
                found += ["", f"{margin}.. code-block:: python", ""]
                continue
        elif code is None and text and not margin:
            in_section = False
        elif code is None and text and margin and not in_section and not (found and found[-1].strip()):
            code = margin
            found += [".. code-block:: python", ""]
        if code is None and text.startswith("- ") and found and not _in_list(found[-1], margin):
            found.append("")  # a list begins with a paragraph of its own there
        found.append(line if code is not None else escaped(line))
    lines[:] = found


def _in_list(line: str, margin: str) -> bool:
    """Whether a line belongs to the list whose items have this margin."""
    return not line.strip() or line.startswith((f"{margin}- ", f"{margin} "))


def escaped(text: str) -> str:
    """What stands outside backticks, with every `*`, `|`, backslash and trailing `_` escaped."""
    text = MARKUP.sub(lambda match: match[1] or "\\" + (match[2] or match[3]), text)
    return re.sub(r"(`[^`\n]+`)(?=\w)", r"\1\\ ", text)  # of `Name`s the letter ends no markup there


def link_names(app, tree) -> None:
    """Makes `tasks.TextClassifier` and `Prune(...)` in running text a link to the reference."""
    for literal in list(tree.findall(nodes.literal)):
        words = re.fullmatch(r"([A-Za-z_.]+)(\(.*\))?", literal.astext())
        target = words and app.tfxformer_links.get(words[1])
        if target is None or any(isinstance(parent, (nodes.reference, nodes.title)) for parent in _above(literal)):
            continue
        link = addnodes.pending_xref("", refdomain="py", reftype="obj", reftarget=target, refexplicit=True)
        literal.replace_self(link)
        link += literal


def _above(node):
    while node.parent is not None:
        node = node.parent
        yield node


def links() -> dict[str, str]:
    """What may stand in backticks -> the public name; a bare name where one module alone has it."""
    found, bare = {}, {}
    for full in documented_names():
        found[full] = full
        found[full.removeprefix("tfxformer.")] = full
        bare.setdefault(full.rpartition(".")[2], []).append(full)
    once = {name: fulls[0] for name, fulls in bare.items() if len(fulls) == 1 and name[0].isupper()}
    return {**once, **found}


def setup(app):
    """What Sphinx calls."""
    app.tfxformer_names, app.tfxformer_links = set(documented_names()), links()
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip_field)
    app.connect("autodoc-process-docstring", docstring, priority=400)  # before napoleon, which reads Args and Raises
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": False}
