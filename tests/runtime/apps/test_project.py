"""Android and iOS projects around small files: what is written, and that Python gives the answers recorded in them.

tests/clients/test_kotlin.py compiles the Kotlin and plays the answers back.
"""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import litert_files
import numpy as np
import pytest
import tokenizers

from tfxformer.runtime import LiteRTGenerator, LiteRTModel, write_app
from tfxformer.runtime.apps import description
from tfxformer.runtime.model_file import open_file
from tfxformer.text import Tokenizer

FILES = {
    "text-classification": lambda: litert_files.exported("float32", 8, 16)[0],
    "text-embedding": litert_files.embedder,
    "token-classification": lambda: litert_files.other("tag")[1],
    "question-answering": lambda: litert_files.other("answer")[1],
    "text-generation": litert_files.decoder,
}
TEXT = "good film"
PLACES = {
    "android": ("app/src/main/assets", "answers/src/test/resources"),
    "ios": ("Sources/TextModel/Model", "Answers/Tests/AnswersTests"),
}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def toml(path):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def differences(path, task, answers):
    """How far Python's answers now are from those that were written; other words or labels are a failure."""
    model = (LiteRTGenerator if task == "text-generation" else LiteRTModel)(path)
    for row in answers:
        if task == "text-generation":
            assert model.generate(row["prompt"], row["max_new_tokens"]) == row["text"]
            yield 0
        elif task == "question-answering":
            (found,) = model.predict([(row["question"], row["context"])], n_best=len(row["answers"]))
            assert [one.text for one in found] == [one["text"] for one in row["answers"]]
            yield from (
                one.probability - other["probability"] for one, other in zip(found, row["answers"], strict=True)
            )
        elif task == "token-classification":
            assert model.predict([row["words"]]) == [row["labels"]]
            (found,) = model.entities([row["text"]])
            assert [one.text for one in found] == [one["text"] for one in row["entities"]]
            yield from (one.score - other["score"] for one, other in zip(found, row["entities"], strict=True))
        else:
            text = row["text"] if row.get("pair") is None else (row["text"], row["pair"])
            yield from model.predict([text])[0] - np.array(row["values"])


@pytest.mark.filterwarnings("ignore:.*(longer than|make no piece):UserWarning")
@pytest.mark.parametrize("platform", PLACES)
@pytest.mark.parametrize("task", FILES)
def test_project(tmp_path, task, platform):
    path, folder = FILES[task](), tmp_path / "app"
    told = write_app(path, folder, platform, [TEXT])
    assert told | {"task": task, "runtime": "LiteRT", "platform": platform} == told
    assets, tested = (folder / place for place in PLACES[platform])
    assert (assets / "model.tflite").read_bytes() == path.read_bytes()
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix not in (".tflite", ".json"):
            assert "@@" not in file.read_text(encoding="utf-8"), f"{file.name} has a place that is not filled in"
            assert file.suffix != ".xml" or ElementTree.parse(file)
            assert file.suffix != ".toml" or "litert" in toml(file)["libraries"]
    facts, vectors = read(assets / "model.json"), read(tested / "vectors.json")
    assert read(tested / "model.json") == facts
    assert told["answers"] == len(vectors["answers"]) > 0
    assert TEXT in json.dumps(vectors["answers"])
    if task != "text-generation":  # of it the steps are recorded
        assert vectors["runs"] and all(run["inputs"] and run["outputs"] for run in vectors["runs"])
    if platform == "android" or task != "question-answering":  # there answers of iOS begin and end with words
        assert np.abs(list(differences(path, task, vectors["answers"]))).max(initial=0) < 1e-5
    backend = tokenizers.Tokenizer.from_file(str(assets / "tokenizer.json"))
    for text, pieces in vectors["pieces"].items():
        assert backend.encode(text, add_special_tokens=False).ids == pieces["ids"]
        assert all(start <= end <= len(text) for start, end in zip(pieces["starts"], pieces["ends"], strict=True))


def test_special_tokens_around_texts_give_the_ids_of_the_tokenizer():
    path = FILES["question-answering"]()
    facts, file = description.describe(open_file(path)), open_file(path)
    backend = tokenizers.Tokenizer.from_str(file.tokenizer.tokenizer_json())
    one, other = (description.plain_ids(backend, text) for text in ("a cat sat", "the red mat."))
    single, pair = facts["single"], facts["pair"]
    assert file.tokenizer.ids(["a cat sat"]) == [single["before"] + one + single["after"]]
    encoding = file.tokenizer.encode(["a cat sat"], ["the red mat."])
    head, tail = pair["before"] + one + pair["between"], other + pair["after"]
    assert encoding.token_ids[0].tolist() == head + tail
    assert encoding.segment_ids[0].tolist() == [0] * len(head) + [facts["second_segment"]] * len(tail)


def test_words_of_byte_level_tokenizers_get_their_space():
    tokenizer = Tokenizer.train_byte_level_bpe(["a cat sat on the mat", "Zürich, 3 km"] * 4, 300)
    backend = tokenizers.Tokenizer.from_str(tokenizer.tokenizer_json())
    assert description.word_prefix(tokenizer, backend) == " "
    assert description.word_prefix(litert_files.task().tokenizer, backend=tokenizers.Tokenizer.from_str(
        litert_files.task().tokenizer.tokenizer_json())) == ""  # fmt: skip


def test_files_with_mediapipes_metadata_are_run_by_it(tmp_path):
    path = litert_files.classifier("float32")
    told = write_app(path, tmp_path / "app", "android")
    assert told["runtime"] == "MediaPipe Tasks"
    code = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "app" / "app").rglob("*.kt*"))
    assert "libs.mediapipe.text" in code
    assert "djl" not in code
    assert write_app(path, tmp_path / "ios", "ios")["runtime"] == "LiteRT"  # its pods are no Swift package


def test_what_no_app_is_made_of(tmp_path):
    with pytest.raises(ValueError, match="an encoder-decoder; apps are made of text-classification"):
        write_app(litert_files.exported_seq2seq()[0], tmp_path / "app", "android")
    with pytest.raises(ValueError, match="the task 'masked-lm'"):
        write_app(litert_files.other("fill_mask")[1], tmp_path / "app", "android")
    with pytest.raises(ValueError, match="platform='web': wanted one of android, ios"):
        write_app(litert_files.decoder(), tmp_path / "app", "web")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="is not empty: name a new folder"):
        write_app(litert_files.decoder(), tmp_path / "app", "ios")
    assert [path.name for path in Path(tmp_path).rglob("*")] == ["app", "mine.txt"]


@pytest.mark.extra
def test_no_app_is_made_of_a_bundle(tmp_path):
    pytest.importorskip("litert_lm_builder", reason="needs the extra [litertlm]")
    with pytest.raises(ValueError, match=r"bundle for LiteRT-LM.*name its \.tflite file"):
        write_app(litert_files.bundle(), tmp_path / "app", "ios")
    assert not list(tmp_path.iterdir())
