"""Every road by which something of ours reaches the disk, with an old and a new state, and faults on the way.

A road writes one of its two states to a place. `contents` of a place are compared with those of the states, byte by
byte; that each state opens and answers as its model does is tried once, on the states themselves (`answers`).
"""

import builtins
import contextlib
import errno
import functools
import hashlib
import importlib.util
import io
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import keras
import litert_files
import numpy as np
import tiny
from ai_edge_litert.interpreter import Interpreter
from language_cases import greedy

from tfxformer import export, files, tasks
from tfxformer.compression import Adapters, LoRA
from tfxformer.data import Records, write_records
from tfxformer.export import convert, export_litert
from tfxformer.figures import figure, save_figure
from tfxformer.recipes import pipeline
from tfxformer.runtime.format import checksum
from tfxformer.text import Tokenizer
from tfxformer.training.resume.checkpoint_files import read_checkpoint, write_checkpoint

# What every bundle has of its own: its moment, its number, and the digest over both.
BUNDLES_OWN = re.compile(rb"20\d\d-[\d-]+T[\d:.]+\+00:00|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|sha256:[0-9a-f]{64}")
TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.tfxformer-(tmp|commit)")
STATES = ("old", "new")


@dataclass(frozen=True)
class Road:
    """How a state is written to a place, and what a place answers when it is opened."""

    name: str
    file: str  # what a place of it is called
    write: Callable[[str, Path], object]
    answers: Callable[[Path], object]
    wanted: Callable[[str], object]  # of each state, from the model in memory


# ---- states -----------------------------------------------------------------------------------------------------


@functools.cache
def tokenizer(state: str) -> Tokenizer:
    """Two that differ in their ids."""
    with tempfile.TemporaryDirectory() as folder:
        words = tiny.VOCABULARY if state == "old" else [*tiny.SPECIAL, *reversed(tiny.VOCABULARY[5:])]
        (Path(folder) / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        return Tokenizer.from_vocabulary(Path(folder) / "vocab.txt")


@functools.cache
def model(kind: str, state: str, road: str = ""):
    """A tiny task of one road; the old and the new one differ in weights, tokenizer and, if they have any, labels."""
    backbone = tiny.backbone("electra" if kind == "ReplacedTokenDetection" else "bert", encoder__num_layers=1)
    labels = {"labels": ["a", "b", "c"] if state == "old" else ["no", "yes"]} if kind == "TextClassifier" else {}
    part = {"generator_size": 0.5} if kind == "ReplacedTokenDetection" else {}
    made = getattr(tasks, kind)(backbone, tokenizer=tokenizer(state), sequence_length=16, **labels, **part)
    return tiny.perturb(made, STATES.index(state))


def logits(task) -> bytes:
    """What a task answers, to the last bit."""
    return np.asarray(task(task.encode(["good film", "a bad plot"], sequence_length=16))).tobytes()


def _saved(kind: str, state: str, folder: Path):
    # The old one in shards: their index must not outlive them.
    return model(kind, state).save_pretrained(folder, max_shard_bytes=20_000 if state == "old" else 10**9)


def _embedder_then_classifier(state: str, folder: Path):
    return model("TextEmbedder" if state == "old" else "TextClassifier", state).save_pretrained(folder)


def _open_either(folder: Path) -> bytes:
    kind = "TextEmbedder" if (folder / "modules.json").is_file() else "TextClassifier"
    return logits(getattr(tasks, kind).from_pretrained(folder))


@functools.cache
def adapters(state: str) -> Adapters:
    """An adapter with random parts."""
    held = Adapters(tiny.perturb(tasks.TextClassifier(tiny.backbone(encoder__num_layers=1), ["no", "yes"]), 3))
    held.add("films", LoRA(rank=2 if state == "old" else 3))
    for variable in held.model.trainable_variables:
        variable.assign(np.random.default_rng(STATES.index(state)).normal(size=variable.shape))
    return held


def _ids(opened: Tokenizer) -> list:
    return opened.encode(["good film"], sequence_length=6).token_ids.tolist()


def _adapter_values(held: Adapters) -> list[bytes]:
    return sorted(np.asarray(v.value).tobytes() for v in held.model.trainable_variables)


def _loaded_adapters(folder: Path) -> list[bytes]:
    held = Adapters(tiny.perturb(tasks.TextClassifier(tiny.backbone(encoder__num_layers=1), ["no", "yes"]), 3))
    held.load(folder)
    return _adapter_values(held)


@functools.cache
def exportable(state: str) -> keras.Model:
    """A plain model of one layer: what is tried is how its file is written."""
    inputs = keras.Input((4,), batch_size=1, name="x")
    outputs = keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(seed=STATES.index(state)))
    return keras.Model(inputs, outputs(inputs))


@functools.cache
def _converted(state: str) -> convert.Converted:
    """What the converter, which is not what is tried, makes of it; the rest of an export runs anew each time."""
    found, real = [], convert.convert
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(convert, "convert") as converting:
        converting.side_effect = lambda *how: found.append(real(*how)) or found[0]
        export_litert(exportable(state), Path(folder, "model.tflite"), "float32")
    return found[0]


def _export(state: str, path: Path):
    made = _converted(state)
    with mock.patch.object(convert, "convert", lambda *how: made):
        export_litert(exportable(state), path, "float32")


def _run_litert(path: Path) -> list[float]:
    opened = Interpreter(model_path=str(path))  # the plain one: the file has no task
    runner = opened.get_signature_runner(*opened.get_signature_list())
    return np.round(next(iter(runner(x=np.ones((1, 4), "float32")).values())), 4).tolist()


def _rows(state: str) -> list[dict]:
    return [{"a": np.full(3, i + 100 * STATES.index(state), np.int32)} for i in range(6)]


def _records_in_place(state: str, folder: Path):
    """`write_records` writes into new folders only: the old state is an empty one."""
    if state == "new":
        write_records(_rows("new"), folder, shards=2)
    else:
        folder.mkdir(exist_ok=True)


def _read_rows(folder: Path):
    if not list(folder.iterdir()):
        return []
    return [row["a"].tolist() for row in Records(folder).dataset(None).as_numpy_iterator()]


def _arrays(state: str) -> dict:
    return {"w": np.arange(2000, dtype="float32") + STATES.index(state)}


def _figure(state: str, path: Path):
    drawn, (panel,) = figure(1, (2, 2))
    panel.plot([0, 1 + STATES.index(state)])
    save_figure(drawn, path)


def _fit_result(state: str, folder: Path):
    numbers = {"epoch": [1, 2], "loss": [1.0, 0.5 + STATES.index(state)]}
    return pipeline.write_fit(model("TextClassifier", state, "recipe"), folder, {"state": state}, numbers)


def _as_model(kind: str):
    return lambda state: logits(model(kind, state))


def _weights(path: Path) -> bytes:
    fresh = tasks.TextClassifier(tiny.backbone(encoder__num_layers=1), ["no", "yes"], tokenizer=tokenizer("new"))
    fresh.load_weights(path)
    return logits(fresh)


@functools.cache
def _two(state: str):
    """Models of one shape, whose weights can be exchanged."""
    made = tasks.TextClassifier(tiny.backbone(encoder__num_layers=1), ["no", "yes"], tokenizer=tokenizer("new"))
    return tiny.perturb(made, STATES.index(state))


def _keras(path: Path) -> bytes:
    return logits(keras.saving.load_model(path))


def _bundle(state: str, path: Path):
    template = f"{state}: {{{{ messages[0].content }}}}"
    export.bundle_litertlm(
        litert_files.decoder(), litert_files.language_model().tokenizer, path, chat_template=template
    )


BUNDLES = (
    Road(
        "bundle_litertlm",
        "model.litertlm",
        _bundle,
        lambda path: (b"new: {{" in path.read_bytes(), export.LiteRTGenerator(path).generate_ids([5, 6, 7], 4)),
        lambda state: (state == "new", greedy(litert_files.language_model(), [5, 6, 7], 4)),
    ),
)
ROADS = {
    road.name: road
    for road in (
        Road(
            "save_pretrained of a task",
            "folder",
            functools.partial(_saved, "TextClassifier"),
            lambda folder: logits(tasks.TextClassifier.from_pretrained(folder)),
            _as_model("TextClassifier"),
        ),
        Road(
            "save_pretrained of a classifier over an embedder",
            "folder",
            _embedder_then_classifier,
            _open_either,
            lambda state: logits(model("TextEmbedder" if state == "old" else "TextClassifier", state)),
        ),
        Road(
            "save_pretrained of a discriminator and its generator",
            "folder",
            functools.partial(_saved, "ReplacedTokenDetection"),
            lambda folder: logits(tasks.ReplacedTokenDetection.from_pretrained(folder)),
            _as_model("ReplacedTokenDetection"),
        ),
        Road(
            "save_pretrained of a tokenizer",
            "folder",
            lambda state, folder: tokenizer(state).save_pretrained(folder),
            lambda folder: _ids(Tokenizer.from_pretrained(folder)),
            lambda state: _ids(tokenizer(state)),
        ),
        Road(
            "Adapters.save",
            "folder",
            lambda state, folder: adapters(state).save(folder),
            _loaded_adapters,
            lambda state: _adapter_values(adapters(state)),
        ),
        Road(
            ".keras",
            "model.keras",
            lambda state, path: model("TextClassifier", state).save(path),
            _keras,
            _as_model("TextClassifier"),
        ),
        Road(
            ".keras of a backbone",
            "model.keras",
            lambda state, path: model("TextClassifier", state).backbone.save(path),
            lambda path: sorted(np.asarray(w).tobytes() for w in keras.saving.load_model(path).weights),
            lambda state: sorted(np.asarray(w).tobytes() for w in model("TextClassifier", state).backbone.weights),
        ),
        Road(
            "save(zipped=False)",
            "folder",
            lambda state, folder: model("TextClassifier", state).save(folder, zipped=False),
            _keras,
            _as_model("TextClassifier"),
        ),
        Road(
            "save_weights",
            "model.weights.h5",
            lambda state, path: _two(state).save_weights(path),
            _weights,
            lambda state: logits(_two(state)),
        ),
        Road(
            "export_litert",
            "model.tflite",
            _export,
            _run_litert,
            lambda state: np.round(np.asarray(exportable(state)(np.ones((1, 4)))), 4).tolist(),
        ),
        *(BUNDLES if importlib.util.find_spec("litert_lm_builder") else ()),  # an extra
        Road(
            "write_records",
            "records",
            _records_in_place,
            _read_rows,
            lambda state: [row["a"].tolist() for row in _rows(state)] if state == "new" else [],
        ),
        Road(
            "a checkpoint of Resume",
            "checkpoint-000001-000000001.safetensors",
            lambda state, path: write_checkpoint(path, _arrays(state), {"state": state}),
            lambda path: (read_checkpoint(path)[1], read_checkpoint(path)[0]["w"].tolist()),
            lambda state: ({"state": state}, _arrays(state)["w"].tolist()),
        ),
        Road(
            "the history of a fit",
            "history.json",
            lambda state, path: files.write_json(path, {"loss": [STATES.index(state)] * 500}),
            lambda path: path.read_text().count(str(STATES.index("new"))),
            lambda state: 500 * STATES.index(state),
        ),
        Road("a figure", "plot.png", _figure, lambda path: path.read_bytes()[:4], lambda state: b"\x89PNG"),
        Road(
            "the result of a recipe",
            "folder",
            _fit_result,
            lambda folder: (_keras(folder / "model.keras"), logits(tasks.TextClassifier.from_pretrained(folder))),
            lambda state: (logits(model("TextClassifier", state)),) * 2,
        ),
    )
}


# ---- what stands at a place ---------------------------------------------------------------------------------------


def contents(place: Path):
    """A file, or all files of a folder, as digests by name; None where there is nothing. Moments are left out."""
    if place.is_dir():
        paths = sorted(path for path in place.rglob("*") if path.is_file())
        names = {path.relative_to(place): path for path in paths if path.name != "metadata.json"}
        return {str(name): _digest(path) for name, path in names.items() if not TEMPORARY.fullmatch(name.parts[0])}
    return _digest(place) if place.exists() else None


def _digest(path: Path):
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as opened:
            assert opened.testzip() is None
            names = {entry.filename: entry.CRC for entry in opened.infolist() if entry.filename != "metadata.json"}
            if (path.parent / "results.json").exists():  # a recipe compiles it anew: its optimizer has a new number
                del names["config.json"]
            return names
    content = path.read_bytes()
    if path.suffix == ".litertlm":
        assert checksum.check(content)
        content = BUNDLES_OWN.sub(b"", content)
    return hashlib.sha256(content).hexdigest()


def leftovers(parent: Path) -> list[Path]:
    """Temporaries anywhere below a folder."""
    return [path for path in parent.rglob("*") if TEMPORARY.fullmatch(path.name)]


@dataclass
class States:
    """The two states of a road, written once: `kept` holds the old one, to begin from again and again."""

    road: Road
    kept: Path
    contents: dict

    @classmethod
    def of(cls, road: Road, scratch: Path) -> "States":
        """Writes both; a user's file that stands in a folder beside ours stays."""
        found, kept = {}, scratch / "old" / road.file
        kept.parent.mkdir(parents=True)
        for state in STATES:
            place = scratch / state / road.file
            if state == "new":
                shutil.copytree(kept.parent, place.parent)
            road.write(state, place)
            if state == "old" and place.is_dir() and road.name != "write_records":
                (place / "notes").mkdir()
                (place / "notes" / "mine.txt").write_text("mine")
            found[state] = contents(place)
        assert found["old"] != found["new"]
        return cls(road, kept, found)

    def begin(self, place: Path) -> None:
        """Puts the old state to a place."""
        shutil.rmtree(place.parent, ignore_errors=True)
        shutil.copytree(self.kept.parent, place.parent)

    def now(self, place: Path) -> str:
        """Which state a place is in, as the next reader finds it."""
        files.recover(place)
        found = contents(place)
        which = [state for state, known in self.contents.items() if known == found]
        assert which, f"{self.road.name}: neither state, but {found} of {self.contents}"
        return which[0]


# ---- faults -------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is dead from here on: nothing it calls reaches the disk any more."""


@contextlib.contextmanager
def faults(root: Path, at: int = 0, kind: str = "", watch: Callable = lambda: None):
    """Counts what reaches the disk below `root`; the `at`-th call fails, of a "full" disk or because of a "kill".

    Yields a list that has a name for each call so far.
    """
    calls, dead = [], []

    def guarded(real, name, relevant):
        def call(*arguments, **options):
            if not relevant(*arguments, **options):
                return real(*arguments, **options)
            if dead:
                raise Killed
            watch()
            calls.append(name)
            if len(calls) == at and kind == "kill":
                dead.append(True)
                raise Killed
            if len(calls) == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **options)

        return call

    def below(path, *rest, **options):
        return isinstance(path, int) or "dir_fd" in options or str(path).startswith(str(root))

    def writing(path, mode="r", *rest, **options):
        return set(mode) & set("wxa+") and not isinstance(path, int) and str(path).startswith(str(root))

    # A full disk lets nothing new in; what is removed is removed.
    names = ("mkdir", "rename", "replace", "fsync", "link", *(("unlink", "rmdir") if kind != "full" else ()))
    with contextlib.ExitStack() as stack:

        def patch(module, name, relevant):
            real = getattr(module, name)
            setattr(module, name, guarded(real, name, relevant))
            stack.callback(setattr, module, name, real)

        for name in names:
            patch(os, name, below)
        patch(files, "_exchange", below)
        patch(io, "open", writing)
        patch(builtins, "open", writing)
        yield calls
