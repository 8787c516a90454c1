"""TensorBoard with what Keras' own callback does not show: norms, rates, texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import keras
import numpy as np

from tfxformer.arguments.keywords import KnownKeywords
from tfxformer.extras import needs
from tfxformer.training.callbacks.gradient_norms import GradientNorms, weight_norms
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.resume.state import value_of

_NORMS = (False, True, "layers")


class TensorBoard(KnownKeywords, keras.callbacks.TensorBoard):
    """`keras.callbacks.TensorBoard`, which writes losses, metrics, learning rate, histograms and profiles, and more.

    With `update_freq=N` every N batches get `batch_learning_rate` and `batch_gradient_norm`, the mean of the updates
    since the last ones; epochs get `epoch_gradient_norm`, the mean of all their updates, and `epoch_weight_norm`. A
    layer's are below, such as `epoch_gradient_norm/encoder/layer_0/attention/query`. Where an epoch does not end at an
    N-th batch, Keras loses all that it writes of it; here it stays.

    Whatever earlier callbacks put into the logs is written too: `Throughput`'s figures, the `sparsity` of
    `compression.Prune`. Needs the extra `tfxformer[tensorboard]`. (Weights & Biases has a callback of its own that
    takes every model here, `wandb.integration.keras.WandbMetricsLogger`: extra `tfxformer[wandb]`.)

        training.TensorBoard(
            "logs",
            update_freq=50,
            gradient_norms="layers",
            scalars=lambda: {"zeros": compression.sparsity_report(lm).kernels.sparsity},
            texts=lambda: lm.generate(["Once upon a time"], max_new_tokens=50, seed=0),
            profile_batch=(10, 15),
        )

    Args:
        log_dir: folder of the event files.
        gradient_norms: True for the L2 norm of all gradients, before clipping; "layers" for each layer's too. They are
            taken inside the step (see `gradient_norms.GradientNorms`).
        weight_norms: the same of the weights, at the end of an epoch.
        scalars: function of nothing, at the end of each epoch: a dict of numbers; written as `epoch_<name>`.
        texts: function of nothing, at the end of each epoch: a text or several.
        **arguments: of `keras.callbacks.TensorBoard`.

    Raises:
        ImportError: where the package tensorboard is not installed.
    """

    def __init__(
        self,
        log_dir="logs",
        *,
        gradient_norms: bool | str = False,
        weight_norms: bool | str = False,
        scalars: Callable[[], Mapping[str, float]] | None = None,
        texts: Callable[[], str | Iterable[str]] | None = None,
        **arguments,
    ):
        needs("TensorBoard", "tensorboard")
        super().__init__(log_dir, **arguments)
        for name, value in (("gradient_norms", gradient_norms), ("weight_norms", weight_norms)):
            if value not in _NORMS:
                raise ValueError(f"{name} is one of {', '.join(map(repr, _NORMS))}; got {value!r}.")
        self.gradient_norms, self.weight_norms = gradient_norms, weight_norms
        self.scalars, self.texts = scalars, texts
        self._norms: GradientNorms | None = None

    # ---- inside an epoch --------------------------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._stop_watching()
        if self.gradient_norms:
            self._norms = GradientNorms(self.model, by_layer=self.gradient_norms == "layers")

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if self._norms is not None:
            self._norms.take()
            self._of_epoch = np.zeros(len(self._norms.layers) + 1), 0

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if self.update_freq == "epoch" or self._global_train_batch % self.update_freq:
            return
        self.summary.scalar("batch_learning_rate", self._learning_rate(), step=self._global_train_batch)
        if self._norms is not None:
            self._write_norms("batch", *self._collect_norms(), self._global_train_batch)

    def _learning_rate(self) -> float:
        return float(value_of(updating_optimizer(self.model.optimizer).learning_rate))

    def _collect_norms(self):
        taken = sums, updates = self._norms.take()
        self._of_epoch = self._of_epoch[0] + sums, self._of_epoch[1] + updates
        return taken

    def _write_norms(self, what, sums, updates, step):
        if updates:  # an accumulation may not have ended
            for name, value in zip(["", *self._norms.layers], sums / updates, strict=True):
                self.summary.scalar(f"{what}_gradient_norm{name and '/'}{name}", value, step=step)

    # ---- at its end -------------------------------------------------------------------------------------------

    def on_epoch_end(self, epoch, logs=None):
        with self.summary.record_if(True):  # Keras has left the rule of the last batch standing
            super().on_epoch_end(epoch, logs)
            with self._train_writer.as_default():
                self._write_epoch(epoch)
            self._train_writer.flush()

    def _write_epoch(self, epoch):
        if self._norms is not None:
            self._collect_norms()
            self._write_norms("epoch", *self._of_epoch, epoch)
        if self.weight_norms:
            for name, value in weight_norms(self.model).items():
                if not name or self.weight_norms == "layers":
                    self.summary.scalar(f"epoch_weight_norm{name and '/'}{name}", value, step=epoch)
        for name, value in (self.scalars() if self.scalars else {}).items():
            self.summary.scalar(f"epoch_{name}", float(value), step=epoch)
        if self.texts is not None:
            texts = self.texts()
            self.summary.text("texts", [texts] if isinstance(texts, str) else list(texts), step=epoch)

    def on_test_end(self, logs=None):
        with self.summary.record_if(True):
            super().on_test_end(logs)

    def on_train_end(self, logs=None):
        self._stop_watching()
        super().on_train_end(logs)

    def _stop_watching(self):
        if self._norms is not None:
            self._norms.end()
            self._norms = None
