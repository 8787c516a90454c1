"""The numbers of every epoch, in a file and as curves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import keras

from tfxformer.backend import strategy_of
from tfxformer.figures import COLOURS, figure, save_figure
from tfxformer.files import write_json
from tfxformer.training.devices.workers import is_chief
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.resume.state import value_of

_RATE = "learning_rate"
_UNITS = {"speed": "a second", "sparsity": "share of zeros", "rank": "mean rank of a layer"}


def numbers(history) -> dict[str, list[float | None]]:
    """A Keras History as lists of plain floats; None where a number is not finite, as JSON has it."""
    return {name: [_finite(value) for value in values] for name, values in history.history.items()}


def training_curve(history: dict, path) -> None:
    """Losses, scores and, where they are there, learning rates by epoch, of all fits one after the other.

    What was measured on held-out texts (`val_...`) is dashed, in the colour of the same number in training.

    Args:
        history: {name of the fit: {name of a number: list, one an epoch, None where it had none}}.
        path: the image (.png, .svg).
    """
    panels = {"loss": [], "score": []}
    for name in dict.fromkeys(name for values in history.values() for name in values):
        if name not in ("epoch", "updates"):
            panels.setdefault(_panel(name), []).append(name)
    panels = {what: names for what, names in panels.items() if names or what == "loss"}
    drawn, axes = figure(len(panels), (4.5 * len(panels), 3.8))
    drawn.suptitle(" and ".join(["Training", *(["held-out data"] if _held_out(history) else [])]) + ", by epoch")
    for axis, (what, names) in zip(axes, panels.items(), strict=True):
        first, colours = 1, {}
        for fit, values in history.items():
            for name in (one for one in values if one in names):
                points = [math.nan if value is None else value for value in values[name]]
                held_out, base = name.startswith("val_"), name.removeprefix("val_")
                colour = colours.setdefault((fit, base), COLOURS[len(colours) % len(COLOURS)])
                label = (f"{fit}: {base}" if fit else base) + (", held out" if held_out else "")
                looks = {"marker": "s", "linestyle": "--"} if held_out else {"marker": "o"}
                axis.plot(
                    range(first, first + len(points)), points, label=label.replace("_", " "), color=colour, **looks
                )
            first += max(map(len, values.values()), default=0)
        axis.set(title=what, xlabel="epoch", ylabel=_UNITS.get(what, what))
        axis.set_xlim(0.5, max(first - 0.5, 1.5))
        if what == "sparsity":
            axis.set_ylim(0, 1)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize="small")
    save_figure(drawn, path)


def _held_out(history: dict) -> bool:
    return any(name.startswith("val_") for values in history.values() for name in values)


def _panel(name: str) -> str:
    """Where a number is drawn: beside those of its kind."""
    if name.endswith("loss"):
        return "loss"
    if name.startswith(_RATE):
        return "learning rate"
    if name in ("sparsity", "rank"):  # what pruning and AdaLoRA take away: no scores
        return name
    return "speed" if name.endswith("_per_second") else "score"


class HistoryFiles(keras.callbacks.Callback):
    """Writes `history.json` and `training-curve.png` into a folder after every epoch, each whole or not at all.

    The file is {"epoch": [1, 2, ...], "updates": [...], "loss": [...], "learning_rate": [...], ...}: for each epoch the
    optimizer's updates so far, the rate of the next one, and every number of the logs, those that earlier callbacks put
    there too; null where an epoch has not got it, or it is not finite. A training that goes on (`initial_epoch`, or
    `keras.callbacks.BackupAndRestore`) goes on with the file that is there; one that begins at the first epoch begins
    it anew.

    Args:
        folder: path, made where it is missing.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder).expanduser()
        self._epochs: list[dict] | None = None

    @property
    def path(self) -> Path:
        """Where the numbers are."""
        return self.folder / "history.json"

    def on_train_begin(self, logs=None):
        self._epochs = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._epochs is None:  # only here the first epoch is known
            self._epochs = [one for one in self._read() if one["epoch"] <= epoch] if epoch else []

    def _read(self) -> list[dict]:
        """The file as a dict for each epoch.

        Raises:
            ValueError: where it is no history.
        """
        if not self.path.exists():
            return []
        try:
            columns = json.loads(self.path.read_text(encoding="utf-8"))
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            if any(not isinstance(row["epoch"], int) for row in rows):
                raise TypeError("an epoch is no whole number")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.path} is no history that training could go on with ({error}): move it away, or name another "
                "folder."
            ) from error
        return rows

    def on_epoch_end(self, epoch, logs=None):
        optimizer = updating_optimizer(self.model.optimizer)
        row = {"epoch": epoch + 1, "updates": int(value_of(optimizer.iterations)), **(logs or {})}
        row.setdefault(_RATE, float(value_of(optimizer.learning_rate)))
        self._epochs.append({name: value if isinstance(value, int) else _finite(value) for name, value in row.items()})
        names = list(dict.fromkeys(name for one in self._epochs for name in one))
        columns = {name: [one.get(name) for one in self._epochs] for name in names}
        if not is_chief(strategy_of(self.model)):
            return
        write_json(self.path, columns)
        training_curve({"": columns}, self.folder / "training-curve.png")


def _finite(value) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None
