"""A search for training settings as a value: the model, the data, how to search, and the dials that are turned."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field

from tfxformer.recipes.sweep.recipe import DTYPES
from tfxformer.recipes.sweep.rules import Checked, least, one_of, rule, share
from tfxformer.recipes.sweep.tuning.inputs import SINGLE_LABEL
from tfxformer.recipes.sweep.tuning.training import LOSS, MONITORS

RANDOM, HYPERBAND, BAYESIAN = METHODS = ("random", "hyperband", "bayesian")
TASKS = ("text-classification", "token-classification", "question-answering", "text-embedding")
PROBLEM_TYPES = (SINGLE_LABEL, "multi_label_classification", "regression")
EPOCHS, TRIALS, VALIDATION = 3, 10, 0.1
HALVING = 3  # Hyperband's factor: so many times fewer settings go on, for so many times more epochs
MOST_TRIALS = 1000


@dataclass(frozen=True)
class Dial:
    """What a setting may be.

    Attributes:
        values: those to choose from, or None for an interval.
        low, high: ends of the interval, both included.
        log: bool, whether to draw from the interval's logarithms.
    """

    values: tuple | None = None
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False


@dataclass(frozen=True)
class Kind:
    """What the values of a dial are.

    Attributes:
        whole: bool, integers.
        holds: what is true of each value.
        words: the same in words, the end of "wanted ...".
    """

    whole: bool
    holds: object
    words: str


_POSITIVE = Kind(False, lambda value: math.isfinite(value) and value > 0, "numbers above 0")
_COUNT = Kind(True, lambda value: value >= 1, "integers from 1 on")
DIALS = {
    "learning_rate": _POSITIVE,
    "batch_size": _COUNT,
    "epochs": _COUNT,
    "warmup": Kind(False, lambda value: 0 <= value < 1, "shares of the steps, from 0 and below 1"),
    "weight_decay": Kind(False, lambda value: math.isfinite(value) and value >= 0, "numbers from 0 on"),
}


@dataclass(frozen=True)
class Search(Checked):
    """How the settings are searched.

    Attributes:
        method: "random", "hyperband" (Li et al., 2018) or "bayesian" (a Gaussian process, upper confidence bound).
        trials: int, settings tried in all; None for 10. Hyperband's number follows from its epochs.
        epochs: int, of each trial where the space has no such dial; None for 3. Of Hyperband the most, at least 3.
        objective: a key of `training.MONITORS`, of the held-out texts.
        early_stopping: int, epochs without a better objective after which a trial ends; None never.
        seed: int, of the drawn settings and, the same in each trial, of new weights, order, dropout and held-out texts.
    """

    method: str = one_of(RANDOM, METHODS)
    trials: int | None = rule(
        None, lambda value: value is None or 1 <= value <= MOST_TRIALS, f"between 1 and {MOST_TRIALS}"
    )
    epochs: int | None = least(None)
    objective: str = one_of(LOSS, tuple(MONITORS))
    early_stopping: int | None = least(1)
    seed: int = least(0, 0)

    def __post_init__(self):
        super().__post_init__()
        if self.method == HYPERBAND and self.trials is not None:
            raise ValueError("trials is not for hyperband, whose number follows from epochs")
        if self.method == HYPERBAND and self.most_epochs < HALVING:
            raise ValueError(f"epochs={self.epochs} must be {HALVING} or more for hyperband, which begins with fewer")

    @property
    def most_epochs(self) -> int:
        """Epochs of a trial, where no dial says it."""
        return self.epochs or EPOCHS

    @property
    def most_trials(self) -> int | None:
        """Settings tried in all; None where the method says it."""
        return None if self.method == HYPERBAND else self.trials or TRIALS


@dataclass(frozen=True)
class Recipe(Checked):
    """A search.

    Attributes:
        model: str, a Hugging Face folder, a hub id, or the name of a checkpoint of `samples` ("minilm").
        data: str, the name of a split of `samples` ("vader_movies"), whose training part is used; or {"train": file,
            "validation": file}, of the formats that `tfxformer finetune` reads; without "validation" a share is held
            out.
        space: {name of a dial: Dial}.
        search: Search.
        task: one of `TASKS`. problem_type: of text classification, one of `PROBLEM_TYPES`.
        sequence_length: int, tokens of a text; None for the model's own, or by the texts.
        validation: float, share of the training texts that no trial trains on; None for 0.1, or the file of `data`.
        train_texts: int, how many texts of a sample are used, the held-out ones among them; None for all.
        dtype: policy of training; None for float32.

    Raises ValueError for a value against its rule, and for what does not go together.
    """

    model: str
    data: str | dict
    space: dict
    search: Search = field(default_factory=Search)
    task: str = one_of("text-classification", TASKS)
    problem_type: str = one_of(SINGLE_LABEL, PROBLEM_TYPES)
    sequence_length: int | None = least(None)
    validation: float | None = share(None)
    train_texts: int | None = least(None)
    dtype: str | None = one_of(None, DTYPES, none=True)

    def __post_init__(self):
        super().__post_init__()
        if not self.space:
            raise ValueError(f"space is empty: give at least one of {', '.join(DIALS)}")
        if "epochs" in self.space and self.search.epochs is not None:
            raise ValueError("search.epochs and space.epochs are both given: one of the two")
        if "epochs" in self.space and self.search.method == HYPERBAND:
            raise ValueError("space.epochs is not for hyperband, which gives epochs itself: search.epochs is the most")
        if self.validation is not None and isinstance(self.data, dict) and "validation" in self.data:
            raise ValueError("validation and data.validation are both given: one of the two")
        if self.train_texts is not None and isinstance(self.data, dict):
            raise ValueError("train_texts is for samples: shorten the file instead")
        if self.problem_type != SINGLE_LABEL and self.task != "text-classification":
            raise ValueError(f"problem_type is of text-classification; this one is {self.task}")

    @property
    def held_out(self) -> str:
        """As `finetune --validation` takes it: a share, or a file."""
        if isinstance(self.data, dict) and "validation" in self.data:
            return self.data["validation"]
        return repr(self.validation or VALIDATION)

    def to_dict(self) -> dict:
        """The recipe as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
