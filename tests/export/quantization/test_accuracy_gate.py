"""The accuracy gate: scores are those of the file by the plain interpreter, and a bad file is not written."""

import types

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from export_cases import TEXTS

from tfxformer import export
from tfxformer.export import convert
from tfxformer.export.quantization import accuracy_gate, quantize

TEXTS_OF_GATE = [*TEXTS, "what a good film", "the office said nothing", "lost", "players walked on"] * 3


def predicted(classifier, path, texts):
    runner = Interpreter(model_path=str(path)).get_signature_runner("classify")
    encoding = classifier.tokenizer.encode(texts, sequence_length=32)
    names = [tensor.name for tensor in classifier.inputs]
    rows = [{name: getattr(encoding, name)[i : i + 1] for name in names} for i in range(len(texts))]
    return [classifier.labels[int(runner(**row)["probabilities"].argmax())] for row in rows]


def test_a_good_file_is_written_with_its_score(classifier, tmp_path):
    path = tmp_path / "m.tflite"
    keras_answers = classifier.predict(TEXTS_OF_GATE, verbose=0).argmax(axis=1)
    labels = [classifier.labels[i] for i in keras_answers]
    labels[0] = next(label for label in classifier.labels if label != labels[0])
    gate = export.AccuracyGate(TEXTS_OF_GATE, labels, most_points_lost=50)
    report = export.export_litert(classifier, path, sequence_length=32, accuracy_gate=gate)
    found = predicted(classifier, path, TEXTS_OF_GATE)
    assert report.keras_score == pytest.approx(1 - 1 / len(labels))
    assert report.score == pytest.approx(np.mean([a == b for a, b in zip(found, labels, strict=True)]))


def test_a_file_that_loses_too_much_is_not_written(classifier, tmp_path, monkeypatch):
    labels = [classifier.labels[i] for i in classifier.predict(TEXTS_OF_GATE, verbose=0).argmax(axis=1)]
    monkeypatch.setattr(export.LiteRTModel, "predict", lambda self, texts: np.eye(3)[[0, 1, 2] * (len(texts) // 3)])
    wrong = 100 * np.mean([label != classifier.labels[i % 3] for i, label in enumerate(labels)])
    gate = export.AccuracyGate(TEXTS_OF_GATE, labels)
    with pytest.raises(
        export.ExportError, match=rf"against 1\.0000 of Keras on 24 texts: {wrong:.2f} points lost, 1 al"
    ):
        export.export_litert(classifier, tmp_path / "m.tflite", sequence_length=32, accuracy_gate=gate)
    assert not list(tmp_path.iterdir())


def test_what_it_refuses(classifier, plain_model, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "convert", lambda *_: pytest.fail("converted before it was refused"))
    with pytest.raises(ValueError, match="as many labels, got 0 and 0"):
        export.AccuracyGate([], [])
    with pytest.raises(ValueError, match="as many labels, got 4 and 1"):
        export.AccuracyGate(TEXTS, ["negative"])
    with pytest.raises(ValueError, match="must not be negative"):
        export.AccuracyGate(TEXTS, ["negative"] * 4, most_points_lost=-1)
    with pytest.raises(ValueError, match="no points to lose"):
        export.AccuracyGate(TEXTS, ["negative"] * 4, score="mean_absolute_error")
    gate = export.AccuracyGate(TEXTS, ["negative"] * 4, score="recall")
    with pytest.raises(ValueError, match="no score 'recall'"):
        export.export_litert(classifier, tmp_path / "m.tflite", sequence_length=32, accuracy_gate=gate)
    with pytest.raises(ValueError, match="scores tasks with labels and a tokenizer"):
        export.export_litert(plain_model, tmp_path / "m.tflite", accuracy_gate=gate)
    assert not list(tmp_path.iterdir())


def test_a_point_of_chrf_is_one_of_its_hundred(monkeypatch):
    monkeypatch.setattr(accuracy_gate, "LiteRTGenerator", lambda path: None)
    monkeypatch.setattr(accuracy_gate.evaluation, "scores", lambda *_: {"chrf": 37.5, "rougeL": 0.375})
    model, mode = types.SimpleNamespace(task_name="seq2seq-lm"), quantize.mode("float32")
    for score, scale in ((None, 1), ("rougeL", 100)):
        gate = export.AccuracyGate(["a source"], ["a target"], most_points_lost=2, score=score)
        assert gate.check(model, b"", mode, 39.0 / scale) == 37.5 / scale
        with pytest.raises(export.ExportError, match=r"2\.50 points lost, 2 allowed"):
            gate.check(model, b"", mode, 40.0 / scale)
