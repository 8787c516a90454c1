"""Writes an Android or iOS project around a LiteRT file.

The projects are files of the package (`templates/`), laid over each other: what all have, what a runtime needs, what a
task needs. Only a name is filled in; all else that depends on the file is data beside it.
"""

from __future__ import annotations

import json
import re
import string
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tfxformer.files import replacing_folder, write_bytes, write_json, write_text
from tfxformer.runtime.apps import description
from tfxformer.runtime.apps.vectors import vectors
from tfxformer.runtime.model_file import ModelFile, open_file
from tfxformer.text.inputs import as_texts

ANDROID, IOS = "android", "ios"
PLATFORMS = (ANDROID, IOS)
_TEMPLATES = resources.files("tfxformer.runtime.apps") / "templates"
# Where the file, its description and the vectors go.
_ASSETS = {ANDROID: "app/src/main/assets", IOS: "Sources/TextModel/Model"}
_TESTED = {ANDROID: "answers/src/test/resources", IOS: "Answers/Tests/AnswersTests"}
# The classes of swift-transformers that read a kind of tokenizer.json.
_SWIFT_CLASSES = {"WordPiece": "BertTokenizer", "BPE": "PreTrainedTokenizer", "Unigram": "T5Tokenizer"}
_STEPS = {
    ANDROID: "open the folder in Android Studio, or run: gradle wrapper && ./gradlew test installDebug",
    IOS: "open Package.swift in Xcode, or run: swift test --package-path Answers",
}


class _Template(string.Template):
    """Text with places to fill in, marked so that neither Kotlin nor Swift has the like."""

    delimiter = "@@"


def write_app(path: str | Path, folder: str | Path, platform: str, texts: Sequence[str] = ()) -> dict[str, Any]:
    """Writes a small app around a file: a Gradle project in Kotlin, or a Swift package.

    It classifies, tags, embeds, answers or writes, by the task of the file. Beside the code stand the file, its
    tokenizer, and `vectors.json`: what Python answers for some texts, against which the project's tests compare.

    Args:
        path: a .tflite file of ours, with its tokenizer inside.
        folder: for the project; a new or an empty one.
        platform: "android" (Kotlin, minimum SDK 26) or "ios" (Swift, iOS 16).
        texts: str, read beside those that are always in the vectors.

    Returns:
        A dict with "folder", "platform", "task", "runtime" (what runs the file: "MediaPipe Tasks" or "LiteRT"),
        "answers" (int, how many are in the vectors) and "next" (str, the next step).

    Raises:
        FileNotFoundError: there is no such file. FileExistsError: the folder is not empty. ValueError: the file is of
            another kind, carries no tokenizer, or one that the platform's library does not read alike.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"platform={platform!r}: wanted one of {', '.join(PLATFORMS)}.")
    if Path(folder).expanduser().is_dir() and any(Path(folder).expanduser().iterdir()):
        raise FileExistsError(f"{folder} is not empty: name a new folder, for an app is changed after it is written.")
    file = open_file(path)
    facts = description.describe(file)
    task = facts["task"]
    whole_words = platform == IOS and task == "question-answering"
    with warnings.catch_warnings():  # of texts that are cut, which is what they are for
        warnings.simplefilter("ignore", UserWarning)
        compared = vectors(file, facts, as_texts(texts), whole_words=whole_words)
    mediapipe = platform == ANDROID and description.uses_mediapipe(file) and not facts.get("default_prompt")
    runtime = "MediaPipe Tasks" if mediapipe else "LiteRT"
    with replacing_folder(folder) as new:
        _write_code(new, platform, task, runtime, _name(file.path))
        _write_assets(new / _ASSETS[platform], file, facts, platform, mediapipe)
        tested = new / _TESTED[platform]
        write_json(tested / "model.json", facts)
        write_text(tested / "vectors.json", json.dumps(compared, ensure_ascii=False))
        if platform == IOS:
            write_text(new / "Tests/TextModelTests/vectors.json", json.dumps(compared, ensure_ascii=False))
    return {
        "folder": str(folder),
        "platform": platform,
        "task": task,
        "runtime": runtime,
        "answers": len(compared["answers"]),
        "next": _STEPS[platform],
    }


def _name(path: Path) -> str:
    """The name of a project: letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-") or "model"


def _layers(platform: str, task: str, runtime: str) -> list[str]:
    """The folders of templates, each over those before it."""
    if platform == IOS:
        return ["ios/common", f"ios/tasks/{task}"]
    if runtime == "LiteRT":
        return ["android/common", "android/litert", f"android/tasks/{task}"]
    return ["android/common", "android/mediapipe", f"android/mediapipe_tasks/{task}"]


def _write_code(folder: Path, platform: str, task: str, runtime: str, name: str) -> None:
    values = {"name": name, "task": task, "runtime": runtime}
    for layer in _layers(platform, task, runtime):
        for place, text in _files(_TEMPLATES.joinpath(*layer.split("/"))):
            place = f".{place}" if place == "gitignore" else place  # packages leave out files that begin with a dot
            write_text(folder / place, _Template(text).substitute(values))


def _files(folder, before: str = ""):
    """(relative path, text) of each file in a folder of templates."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        place = f"{before}{entry.name}"
        if entry.is_dir():
            yield from _files(entry, f"{place}/")
        else:
            yield place, entry.read_text(encoding="utf-8")


def _write_assets(folder: Path, file: ModelFile, facts: dict, platform: str, mediapipe: bool) -> None:
    write_bytes(folder / "model.tflite", bytes(file.content))
    if mediapipe:
        return
    write_json(folder / "model.json", facts)
    write_text(folder / "tokenizer.json", file.tokenizer.tokenizer_json())
    if platform == IOS:
        kind = file.tokenizer.kind
        if kind not in _SWIFT_CLASSES:
            raise ValueError(
                f"The tokenizer of {file.path} is of the kind {kind}; swift-transformers reads "
                f"{', '.join(_SWIFT_CLASSES)}. Android's library reads it: --platform android."
            )
        settings = {
            "tokenizer_class": _SWIFT_CLASSES[kind],
            "do_lower_case": file.tokenizer.lowercase,
            "clean_up_tokenization_spaces": False,
        }
        write_json(folder / "tokenizer_config.json", settings)
        write_json(folder / "config.json", {"model_type": "tfxformer"})
