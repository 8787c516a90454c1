"""How much a model loses by each of its kernels alone, pruned to several sparsities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from numbers import Real

import keras
import numpy as np

from tfxformer.backend import strategy_of
from tfxformer.compression.weights.matrices import Kernel, all_kernels, choose_kernels
from tfxformer.figures import figure, save_figure
from tfxformer.training.resume.state import value_of

SPARSITIES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class KernelSensitivity:
    """One kernel at one sparsity.

    Attributes:
        path, shape, parameters: the kernel's.
        sparsity: float, the fraction of its smallest weights that were zero.
        value: float, the metric then.
        lost: float, how much worse that is than the whole model's; negative where it is better.
    """

    path: str
    shape: tuple[int, ...]
    parameters: int
    sparsity: float
    value: float
    lost: float


@dataclass(frozen=True)
class SensitivityReport:
    """What `sensitivity` found; prints as a table.

    Attributes:
        metric: str, its name.
        baseline: float, the metric of the whole model.
        rows: tuple of `KernelSensitivity`, kernel by kernel, sparsities ascending.
    """

    metric: str
    baseline: float
    rows: tuple[KernelSensitivity, ...]

    def to_dict(self) -> dict:
        """For JSON."""
        rows = [{**asdict(row), "shape": list(row.shape)} for row in self.rows]
        return {"metric": self.metric, "baseline": self.baseline, "rows": rows}

    @property
    def by_kernel(self) -> dict[str, list[KernelSensitivity]]:
        """path -> its rows."""
        found: dict[str, list[KernelSensitivity]] = {}
        for row in self.rows:
            found.setdefault(row.path, []).append(row)
        return found

    def choose(self, sparsity: float) -> dict[str, float]:
        """A sparsity for each kernel, which together reach one: those at which the most that any loses is least.

        Each kernel is as sparse as it can be within that loss, by what was measured of it alone; what they lose
        together is for the model to be measured again.

        Args:
            sparsity: float, the fraction of zeros wanted over all these kernels.

        Returns:
            path -> one of the measured sparsities, or 0.0.

        Raises:
            ValueError: for a sparsity that the measured ones do not reach.
        """
        kernels = self.by_kernel.items()
        total = sum(rows[0].parameters for _, rows in kernels)
        for most in sorted({0.0, *(row.lost for row in self.rows if math.isfinite(row.lost))}):
            chosen = {path: max((r.sparsity for r in rows if r.lost <= most), default=0.0) for path, rows in kernels}
            if sum(chosen[path] * rows[0].parameters for path, rows in kernels) >= sparsity * total - 1e-9:
                return chosen
        highest = max((row.sparsity for row in self.rows), default=0.0)
        raise ValueError(
            f"choose: sparsity={sparsity} is not reached: the highest one measured is {highest}. Measure with higher "
            "sparsities=..., or want less."
        )

    def plot(self, path) -> None:
        """Draws what is lost as a map of kernels and sparsities with its numbers, as a .png or .svg (needs matplotlib).

        Raises:
            OSError: where the file cannot be written.
        """
        kernels = self.by_kernel
        sparsities = sorted({row.sparsity for row in self.rows})
        lost = np.full((len(kernels), len(sparsities)), np.nan)
        for line, rows in enumerate(kernels.values()):
            for row in rows:
                lost[line, sparsities.index(row.sparsity)] = row.lost
        most = float(np.nanmax(np.abs(lost))) or 1.0
        drawn, (panel,) = figure(1, (5.0 + 0.8 * len(sparsities), 1.8 + 0.24 * len(kernels)))
        image = panel.imshow(lost, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")  # orange loses, purple gains
        for line, column in np.argwhere(np.isfinite(lost)):
            value = lost[line, column]
            colour = "white" if abs(value) > 0.65 * most else "black"
            panel.text(column, line, f"{value:+.3g}", ha="center", va="center", fontsize=7, color=colour)
        panel.set_xticks(range(len(sparsities)), [f"{sparsity:.0%}" for sparsity in sparsities])
        panel.set_yticks(range(len(kernels)), list(kernels), fontsize=7)
        panel.set(title="What is lost where one kernel alone is pruned", xlabel="zeros in the kernel")
        drawn.colorbar(image, ax=panel, label=f"{self.metric}: worse than {self.baseline:.4g} by")
        save_figure(drawn, path)

    def __str__(self) -> str:
        kernels = self.by_kernel
        sparsities = sorted({row.sparsity for row in self.rows})
        width = max(map(len, (*kernels, "kernel")))
        lines = [f"{'kernel':{width}}" + "".join(f"{sparsity:>10.0%}" for sparsity in sparsities)]
        lines.append("-" * len(lines[0]))
        for path, rows in kernels.items():
            lines.append(f"{path:{width}}" + "".join(f"{row.lost:>10.4f}" for row in rows))
        return "\n".join([f"{self.metric} {self.baseline:.4f}; what pruning a kernel alone loses of it:", *lines])


def sensitivity(
    model: keras.Model,
    data=None,
    metric: str | Callable[[keras.Model], float] = "loss",
    sparsities: Iterable[float] = SPARSITIES,
    *,
    layers: Callable[[keras.layers.Layer], bool] | None = None,
    higher_is_better: bool | None = None,
    batch_size: int = 32,
) -> SensitivityReport:
    """Prunes each kernel alone by magnitude, measures, and puts it back: the model is bit for bit what it was.

    It takes one evaluation for each kernel and sparsity: some hundred examples are enough. Source of the method:
    Han et al., 2015 (arXiv:1506.02626, figure 6).

    Args:
        model: any compiled Keras model, or a task of ours (which compiles itself).
        data: what the model's `evaluate` takes, with a tuple for several arguments: (texts, labels), (x, y), a
            dataset. Not for a metric that is a function.
        metric: a name among `evaluate`'s results ("loss", "accuracy"); or a function of the model, that returns the
            number itself.
        sparsities: fractions of zeros, each in (0, 1).
        layers: which layers' kernels, as `Prune` has it; None is all but the output layer.
        higher_is_better: of the metric; None: not of one named "loss" or "..._loss", but of others.
        batch_size: examples at a time, where data are no dataset.

    Returns:
        SensitivityReport.

    Raises:
        TypeError, ValueError: for sparsities outside (0, 1), no data, an unknown metric or one that is no number, and
            no kernel.
    """
    sparsities = _checked(sparsities)
    kernels = choose_kernels(model, layers)
    if not kernels:
        known = ", ".join(kernel.path for kernel in all_kernels(model)) or "none"
        raise ValueError(f"sensitivity: layers=... chose no kernel; the model's are: {known}.")
    measure = _measure(model, data, metric, batch_size)
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric").strip("<>")
    if higher_is_better is None:
        higher_is_better = not (name == "loss" or name.endswith("_loss"))
    baseline, rows = measure(), []
    for kernel in kernels:
        variable, before = kernel.variable, value_of(kernel.variable)
        try:
            for sparsity in sparsities:
                _assign(model, kernel, _pruned(before, sparsity))
                value = measure()
                lost = baseline - value if higher_is_better else value - baseline
                shape = tuple(variable.shape)
                rows.append(KernelSensitivity(kernel.path, shape, math.prod(shape), sparsity, value, lost))
        finally:
            _assign(model, kernel, before)
    return SensitivityReport(name, baseline, tuple(rows))


def _pruned(values: np.ndarray, sparsity: float) -> np.ndarray:
    """With its smallest weights at zero, as many as `Prune` would choose; among equals the first are kept."""
    magnitudes = np.abs(values).ravel()
    if magnitudes.itemsize < 4:
        magnitudes = magnitudes.astype("float32")
    kept = max(round(values.size * (1 - sparsity)), 1)
    least = np.partition(magnitudes, values.size - kept)[values.size - kept]
    above, equal = magnitudes > least, magnitudes == least
    mask = above | (equal & (np.cumsum(equal) <= kept - np.count_nonzero(above)))
    return np.where(mask.reshape(values.shape), values, np.zeros_like(values))


def _assign(model, kernel: Kernel, values) -> None:
    with strategy_of(model).scope():
        kernel.variable.assign(values)


def _measure(model, data, metric, batch_size: int) -> Callable[[], float]:
    """What measures the model as it is."""
    if not isinstance(metric, str):
        if not callable(metric):
            raise TypeError(f"sensitivity: metric is a name of evaluate's results or a function; got {metric!r}.")
        if data is not None:
            raise ValueError("sensitivity: a metric that is a function has its own data; leave data=None.")
        return lambda: _number(metric(model))
    if data is None:
        raise ValueError("sensitivity needs data=(texts, labels), or what else the model's evaluate takes.")
    arguments = data if isinstance(data, tuple) else (data,)
    options = {} if hasattr(arguments[0], "element_spec") else {"batch_size": batch_size}

    def measure() -> float:
        x, y, weights = (*arguments, None, None)[:3]
        if weights is not None:
            options["sample_weight"] = weights
        found = model.evaluate(x, y, verbose=0, return_dict=True, **options)
        if metric not in found:
            raise ValueError(f"sensitivity: evaluate has no {metric!r}; it gives: {', '.join(found)}.")
        return _number(found[metric])

    return measure


def _number(value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"sensitivity: the metric must be one number; got {value!r:.80}.") from error


def _checked(sparsities) -> tuple[float, ...]:
    try:
        found = tuple(sorted(set(sparsities)))
        valid = found and all(isinstance(s, Real) and not isinstance(s, bool) and 0.0 < s < 1.0 for s in found)
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"sensitivity: sparsities are fractions of zeros, above 0 and below 1; got {sparsities!r}.")
    return tuple(map(float, found))
