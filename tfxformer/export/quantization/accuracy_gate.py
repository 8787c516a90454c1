"""A file that answers worse than its Keras model is not written."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfxformer.data import evaluation
from tfxformer.data.files.rows import WRITES_TARGETS
from tfxformer.data.text_scores import POINTS
from tfxformer.export.errors import ExportError
from tfxformer.export.quantization.quantize import Mode
from tfxformer.runtime.litert_generator import LiteRTGenerator
from tfxformer.runtime.litert_model import LiteRTModel

LOWER_IS_BETTER = ("mean_absolute_error", "perplexity", "loss")


@dataclass(frozen=True)
class AccuracyGate:
    """What a file has to keep of its model's score on labelled texts.

    Args:
        texts, labels: as the task's `fit` takes them; some hundreds: of 500 texts one point is five.
        most_points_lost: float, the largest loss, in points: hundredths of an accuracy, F1 or correlation, one of
            BLEU or chrF.
        score: str or None, one of those that `data.evaluation.scores` gives for the task; None for its main one.

    Raises ValueError for texts without as many labels, a negative loss, and a score that is better where it is lower.
    """

    texts: Sequence
    labels: Sequence
    most_points_lost: float = 1.0
    score: str | None = None

    def __post_init__(self):
        if not len(self.texts) or len(self.texts) != len(self.labels):
            raise ValueError(
                f"AccuracyGate wants texts and as many labels, got {len(self.texts)} and {len(self.labels)}."
            )
        if self.most_points_lost < 0:
            raise ValueError(f"most_points_lost={self.most_points_lost!r} must not be negative: 0 allows no loss.")
        if self.score in LOWER_IS_BETTER:
            raise ValueError(f"score={self.score!r} has no points to lose: take one that is better where it is higher.")

    def check_model(self, model) -> None:
        """Refuses a model that cannot be scored on texts.

        Raises:
            ValueError: saying which can.
        """
        labelled = ("text-classification", "token-classification", "question-answering", "text-embedding")
        known = (*labelled, WRITES_TARGETS)
        if getattr(model, "task_name", None) not in known or getattr(model, "tokenizer", None) is None:
            raise ValueError(
                f"accuracy_gate scores tasks with labels and a tokenizer ({', '.join(known)}); "
                f"{type(model).__name__} {model.name!r} is none. Leave it out: the file is still verified on samples."
            )

    def keras_score(self, model) -> float:
        """The score that a file is measured by.

        Raises:
            ValueError: for a score that there is not.
        """
        name, found = self._name(model), evaluation.scores(model, self.texts, self.labels)
        if name not in found:
            raise ValueError(f"There is no score {name!r} of {model.task_name}; there are {', '.join(found)}.")
        return found[name]

    def _name(self, model) -> str:
        return self.score or evaluation.main_score(model)

    def check(self, model, content: bytes, mode: Mode, wanted: float) -> float:
        """The finished file's score, against Keras'.

        Raises:
            ExportError: naming both, where the file loses too much.
        """
        name = self._name(model)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.tflite")
            path.write_bytes(content)
            opened = (LiteRTGenerator if model.task_name == WRITES_TARGETS else LiteRTModel)(path)
            found = evaluation.scores(opened, self.texts, self.labels)[name]
        lost = POINTS.get(name, 100.0) * (wanted - found)
        if lost > self.most_points_lost + 1e-9:
            ways = [f"quantization={mode.instead}"] if mode.instead else []
            if mode.calibrated:
                ways += ["float_layers=1 or more", "compression.QuantizationAware in a last short fit"]
            raise ExportError(
                f"{name} {found:.4f} of the {mode.name} file against {wanted:.4f} of Keras on "
                f"{len(self.texts)} texts: {lost:.2f} points lost, {self.most_points_lost:g} allowed. No file was "
                f"written. Try {', '.join([*ways, 'a larger most_points_lost'])}."
            )
        return found
