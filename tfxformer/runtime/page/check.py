"""Whether the page's tokenizer, run by node, writes the ids that Python writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from tfxformer.text import Tokenizer

SCRIPT = Path(__file__).with_name("check.mjs")
TEXTS = (
    "Good.",
    "What a film! It's 3.5% better (or so they say), isn't it?",
    "The meeting is at 10:30 on Tuesday, room 4B.",
    "Où est la gare, s'il vous plaît? Ça va à Zürich, naïve Ångström.",
    "e\u0301 and \u00e9 are the same letter, ﬁ is a ligature, ½ a number",
    "ΟΔΥΣΣΕΥΣ και ο Σωκράτης; Привет, мир!",
    "今日は良い天気です。東京へ行く。𠮷野家",
    "안녕하세요 세계, नमस्ते दुनिया, مرحبا بالعالم",
    "I 💚 this 👩‍👩‍👧‍👦 and 🇨🇭!!!",
    "  two  spaces,\ta tab\nand a line\r\nbreak\u00a0here ",
    "zero\u200bwidth, soft\u00adhyphen, null\u0000 and \ufffd",
    "def f(x):\n    return x ** 2  # 1_000 == 0x3E8",
    "antidisestablishmentarianism xyzzyplugh qwrtpsdfg",
    "https://example.org/a?b=c&d=%20 user@example.org #tag @name",
)
MESSAGES = (
    [{"role": "user", "content": "Where is the station?"}],
    [
        {"role": "system", "content": "You answer in one line."},
        {"role": "user", "content": " Hello! "},
        {"role": "assistant", "content": "Hello, how can I help?"},
        {"role": "user", "content": "Où est la gare?"},
    ],
)


def check(tokenizer: Tokenizer, page: Path, modules: Path, chat: bool) -> tuple[int, list[str]] | None:
    """(texts that were read, those of which the page makes other ids); None where there is no node to run it.

    Args:
        tokenizer: of the file.
        page: the page's folder.
        modules: a node_modules folder with its packages.
        chat: whether the page renders conversations.

    Raises:
        RuntimeError: where node, or the tokenizer in it, fails.
    """
    node = shutil.which("node")
    if node is None:
        return None
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(page / "lib", Path(place, "lib"))
        Path(place, "package.json").write_text('{"type": "module"}', encoding="utf-8")
        Path(place, "node_modules").symlink_to(modules.absolute(), target_is_directory=True)
        shutil.copyfile(SCRIPT, Path(place, SCRIPT.name))
        done = subprocess.run(
            [node, SCRIPT.name, str(page.absolute())],
            input=json.dumps({"texts": TEXTS, "conversations": MESSAGES if chat else []}),
            cwd=place,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"The page's tokenizer fails in node: {' '.join(done.stderr.split())[:500]}")
    found = json.loads(done.stdout)
    wanted = [(text, row) for text, row in zip(TEXTS, tokenizer.ids(TEXTS), strict=True)]
    for messages in MESSAGES if chat else ():
        wanted.append((_said(messages), _conversation(tokenizer, messages)))
    other = [text for (text, row), ids in zip(wanted, found, strict=True) if row != ids]
    return len(wanted), other


def _conversation(tokenizer: Tokenizer, messages) -> list[int] | None:
    """The ids of a conversation; None for one that the template refuses, as some do a system message."""
    try:
        return tokenizer.ids([tokenizer.apply_chat_template(messages)], special_tokens=False)[0]
    except ValueError:
        return None


def _said(messages) -> str:
    return " / ".join(f"{message['role']}: {message['content']}" for message in messages)
