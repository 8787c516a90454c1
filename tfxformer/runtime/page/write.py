"""Writes a page: our HTML and JavaScript, the file, its tokenizer, and the npm packages that run both."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from tfxformer.files import replacing_folder, write_bytes, write_json, write_text
from tfxformer.runtime.model_file import open_file
from tfxformer.runtime.page import check, vendor
from tfxformer.runtime.page.facts import MODEL, facts

STATIC = Path(__file__).with_name("static")
FACTS, TOKENIZER, VENDOR = "model.json", "tokenizer.json", "vendor"


@dataclass(frozen=True)
class PageReport:
    """What was written.

    Attributes:
        path: str, the folder.
        task: str, what the page does.
        bytes: int, of all files; `model_bytes` are the model's.
        packages: {npm package: version}.
        checked_texts: int or None, texts that the page's tokenizer was compared with Python's on; None without node.
        differing_texts: tuple of str, those of which it makes other ids.
    """

    path: str
    task: str
    bytes: int
    model_bytes: int
    packages: dict[str, str]
    checked_texts: int | None
    differing_texts: tuple[str, ...]

    def to_dict(self) -> dict:
        """The report as JSON-ready values."""
        return {**asdict(self), "differing_texts": list(self.differing_texts)}

    def __str__(self) -> str:
        folder = shlex.quote(self.path)
        return "\n".join(
            [
                f"{self.path}: {self.bytes / 1e6:.1f} MB, of which the model has {self.model_bytes / 1e6:.1f} MB",
                self._compared(),
                "Serve it, since browsers load no modules from files:",
                f"  python -m http.server --directory {folder} 8000",
                "and open http://localhost:8000",
            ]
        )

    def _compared(self) -> str:
        """How the page's tokenizer compares with Python's."""
        if self.checked_texts is None:
            return "Its tokenizer was not compared with Python's: node is not on the PATH."
        if not self.differing_texts:
            return f"Its tokenizer writes Python's ids on all {self.checked_texts} check texts."
        texts = "".join(f"\n  {text!r:.100}" for text in self.differing_texts)
        return (
            f"Warning: on {len(self.differing_texts)} of {self.checked_texts} check texts its tokenizer writes other "
            f"ids than Python's, and the page answers otherwise there:{texts}"
        )


def write_page(model: str | Path, output: str | Path, packages: str | Path | None = None) -> PageReport:
    """Writes a static page that does in the browser what a file's task is.

    The page loads nothing from elsewhere: any web server can serve the folder, with or without a network.

    Args:
        model: a .tflite file of a task with its tokenizer, or a .litertlm bundle of one.
        output: folder of the page; an older page there is replaced.
        packages: a node_modules folder with the page's packages; None lets npm fetch them.

    Returns:
        PageReport.

    Raises:
        FileNotFoundError: no such file, no npm, or a package that the folder lacks. RuntimeError: npm or node fails.
        ValueError: for a file without task and tokenizer, or with a tokenizer that JavaScript cannot follow.
    """
    file = open_file(model)
    known = facts(file)
    chat = bool(known["generation"] and known["generation"]["chat"])
    wanted = (*vendor.PACKAGES, vendor.CHAT) if chat else vendor.PACKAGES
    ours = [*(path.name for path in STATIC.iterdir()), FACTS, TOKENIZER, VENDOR, MODEL]
    with vendor.node_modules(wanted, packages) as modules, replacing_folder(output, ours) as folder:
        shutil.copytree(STATIC, folder, dirs_exist_ok=True)
        write_bytes(folder / MODEL, file.content)
        write_json(folder / FACTS, known)
        write_text(folder / TOKENIZER, json.dumps(json.loads(file.tokenizer.tokenizer_json()), ensure_ascii=False))
        versions = vendor.copy(wanted, modules, folder / VENDOR)
        checked = check.check(file.tokenizer, folder, modules, chat)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return PageReport(
        path=str(output),
        task=known["task"],
        bytes=size,
        model_bytes=known["bytes"],
        packages=versions,
        checked_texts=None if checked is None else checked[0],
        differing_texts=() if checked is None else tuple(checked[1]),
    )
