"""Every block of every page runs as it stands, or says why not. Most of a page's time is a model's; see `pages.py`.

The README's run as a user's would; the others op by op, which spares a model's compilation of half a minute. A page
that takes more than 10 s of processor time is a whole road, one that takes more than half a minute is slow.
"""

import ast
import importlib
import re
import shlex
from collections import Counter

import batteries
import pages
import pytest

PAGES = {pages.name_of(page): page.read_text(encoding="utf-8") for page in pages.pages()}
QUICK = ("docs/migrating/kerashub.md", "docs/migrating/tfmot.md", "docs/training/many_devices.md")
SLOW = (  # run by .ci/full; docs/start/quickstart.md stays in .ci/run all the same
    "README.md",
    "docs/smaller/pruning.md",
    "docs/smaller/quantization.md",
    "docs/start/command_line.md",
    "docs/tasks/language_model.md",
    "docs/tasks/multi_task.md",
    "docs/tasks/seq2seq.md",
)
RUNNING = [name for name, text in PAGES.items() if any(block.runs for block in pages.blocks(text))]
NOT_RUN = 12  # blocks that say why; a further one is a decision


def marks_of(name):
    if name in QUICK:
        return ()
    return pytest.mark.slow if name in SLOW else pytest.mark.road


@pytest.mark.samples
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks_of(name)) for name in RUNNING])
def test_page(name, tmp_path, monkeypatch, plain_kernels):
    monkeypatch.chdir(tmp_path)
    with batteries.steps(eager=name != "README.md"):
        pages.run_page(PAGES[name], name)


@pytest.mark.parametrize("name", PAGES)
def test_each_block_runs_or_says_why_not(name):
    found = [block for block in pages.blocks(PAGES[name]) if not block.language.startswith("{")]
    fences = re.findall(r"^ *```(?!\{).+$", PAGES[name], re.MULTILINE)
    assert len(fences) == len(found), "a fence that is indented, or of no language"
    silent = [
        f"{name}:{block.line}: {block.language}"
        for block in found
        if not (block.runs or block.not_run or block.language in pages.SHOWN)
    ]
    assert not silent
    assert all(len(block.not_run) > 20 for block in found if block.not_run is not None)


def test_how_many_do_not_run():
    silent = Counter(name for name, text in PAGES.items() for block in pages.blocks(text) if block.not_run)
    assert sum(silent.values()) == NOT_RUN, silent


def of_language(name: str, language: str) -> list[pages.Block]:
    return [block for block in pages.blocks(PAGES[name]) if block.language == language]


@pytest.mark.parametrize("name", [name for name in PAGES if of_language(name, "python")])
def test_names_of_the_package_exist(name):
    """In the blocks that do not run, too."""
    modules = {}
    for block in of_language(name, "python"):
        tree = ast.parse(block.code)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tfxformer":
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), f"{name}:{block.line}"
                if node.module == "tfxformer":
                    names = [alias.name for alias in node.names if alias.name.islower()]
                    modules |= {one: importlib.import_module(f"tfxformer.{one}") for one in names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                assert hasattr(modules[node.value.id], node.attr), f"{name}: {node.value.id}.{node.attr}"


@pytest.mark.parametrize("name", [name for name in PAGES if of_language(name, "sh")])
def test_command_lines_are_understood(name, tmp_path, monkeypatch):
    """Commands, options and their values, as the program itself reads them; of the blocks that do not run, too."""
    from typer.main import get_command

    from tfxformer.cli.main import app

    monkeypatch.chdir(tmp_path)
    program = get_command(app)
    for block in of_language(name, "sh"):
        for line in block.code.replace("\\\n", " ").splitlines():
            if line.startswith("tfxformer ") and not line.startswith("tfxformer --"):
                command, *arguments = shlex.split(line, comments=True)[1:]
                read = program.commands[command].make_context(command, arguments)
                assert read.params and not read.args, f"{name}: {line}"


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


PAGE = """
```python
x = 3
print("made", x)
```
```text
made 4
```
```sh
NAME=$(echo word)
cat > file.txt << 'END'
tfxformer is not a command here
END
```
<!-- not run: it would fail, as the next one shows -->
```python
raise ValueError
```
```sh
echo "$NAME $(cat file.txt)"
```
```text
word tfxformer is not a command here
```
"""


@pytest.mark.parametrize(
    ("page", "error"),
    [
        (PAGE, None),
        (PAGE.replace("made 4", "found 4"), "shows 'found 4', which was not printed"),
        (PAGE.replace("<!-- not run: it would fail, as the next one shows -->\n", ""), "ValueError"),
        (PAGE.replace('echo "$NAME', 'false; echo "$NAME'), "page.md:20"),
    ],
)
def test_the_runner_sees_what_fails(page, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if error is None:
        assert pages.run_page(page, "page.md")["x"] == 3
        return
    with pytest.raises((AssertionError, ValueError)) as found:
        pages.run_page(page, "page.md")
    assert error in f"{found.typename}: {found.value}"
