"""Checkpoints of a whole training, and going on from the newest after the process was killed."""

from __future__ import annotations

import contextlib
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import keras

from tfxformer.arguments import notices
from tfxformer.backend import strategy_of
from tfxformer.files import remove_leftovers
from tfxformer.training.devices.workers import any_worker, is_chief, is_cluster
from tfxformer.training.resume.checkpoint_files import (
    DamagedCheckpointError,
    checkpoint_name,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from tfxformer.training.resume.checkpoint_state import ResumeError, collect_arrays, collect_manifest, restore_weights

_EXIT_CODE = 128 + signal.SIGTERM  # as shells report a process that SIGTERM ended


class Checkpoint(NamedTuple):
    """A checkpoint that was read."""

    path: Path
    arrays: dict
    manifest: dict


class Resume(keras.callbacks.Callback):
    """Saves all of a training as it runs; the same script, started again, goes on where it was.

    ```python
    model.fit(x, y, epochs=3, callbacks=[training.Resume("run")])
    ```

    For `fit` of a `DistributedModel`, which all tasks are. A checkpoint holds weights, optimizer (its iterations, which
    schedules read, loss scale, averages), seed generators, unfinished gradient accumulation, metrics of the running
    epoch, history, what other callbacks know (`Recover`, Keras' `EarlyStopping`, `ReduceLROnPlateau`,
    `ModelCheckpoint`, `SwapEMAWeights`, and any with `resume_state() -> dict` and `resume_from(dict)`), and the
    position in the data. A process killed at any moment and started again ends with the weights and the history of one
    that was not, bit for bit on CPU. Where the training had ended, `fit` trains nothing, says so, and leaves the model
    as it was at the end: two trainings need two folders.

    What is read must be the same in both runs: arrays and `keras.utils.PyDataset`s are shuffled by `seed` and epoch,
    a `tf.data.Dataset` must give the same batches every time (`shuffle` with a seed) and is read up to the position,
    `training.Epochs` begins there. Generators are refused. Numbers drawn outside Keras' seed generators (tf.random,
    numpy in a PyDataset) are not kept.

    On SIGTERM (preemption) it saves at the end of the running step, and ends the process with SystemExit(143), after
    the handler that was there before; handlers are put back at the end of `fit`. In a cluster, workers share the
    folder; the chief writes.

    Files are safetensors with a SHA-256, written in a thread under a temporary name, then renamed. A damaged newest
    one is passed over with a warning. No other folder is touched, and only its own files in this one.

    Args:
        folder: for the checkpoints, of this training alone; made where it is not.
        save_freq: "epoch", or an int: after so many batches too.
        keep: int, at least 1: how many of the newest are kept.
        monitor: a name among the epoch's logs, such as "val_loss": the checkpoint of the best epoch is kept too, see
            `restore_best`; None keeps none.
        mode: "min" or "max", which values of `monitor` are better.
        seed: int, of the order of arrays and PyDatasets.

    `resumed_from` is the checkpoint's path that the last `fit` went on from, or None.

    Raises (in `fit`):
        ResumeError: for the checkpoint of another model, optimizer or data, and where all are damaged.
        OSError: where one cannot be written; those before are whole.
    """

    def __init__(self, folder, save_freq="epoch", keep=2, monitor=None, mode="min", seed=0):
        super().__init__()
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq >= 1):
            raise ValueError(f'save_freq is "epoch" or a number of batches, at least 1; got {save_freq!r}.')
        if keep < 1 or mode not in ("min", "max"):
            raise ValueError(f'keep must be at least 1 and mode "min" or "max"; got {keep!r} and {mode!r}.')
        self.folder, self.save_freq, self.keep, self.seed = Path(folder).expanduser(), save_freq, keep, seed
        self.monitor, self.mode = monitor, mode
        self.resumed_from: Path | None = None
        self._running = self._stopping = False
        self._saving: Future | None = None

    # ---- as Keras calls it ------------------------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        if not self._running:
            raise TypeError(
                f"Resume needs the fit of a training.DistributedModel (as all tasks are), not of {type(self.model)}: "
                "build the model as DistributedModel(inputs, outputs)."
            )

    def on_test_batch_end(self, batch, logs=None):
        # In a cluster workers stop at the same place only: at the end of the evaluation.
        if self._running and self._stopping and not is_cluster(strategy_of(self.model)):
            self._save_and_leave()

    # ---- as DistributedModel.fit calls it ---------------------------------------------------------------------

    def find(self, strategy) -> Checkpoint | None:
        """The newest checkpoint that is whole; None in a folder without any."""
        if is_chief(strategy):
            remove_leftovers(self.folder)
        damaged = []
        for path in reversed(list_checkpoints(self.folder)):
            try:
                arrays, manifest = read_checkpoint(path)
            except DamagedCheckpointError as error:
                damaged.append(str(error))
                continue
            if damaged:
                notices.warn(f"{' '.join(damaged)} Going back to {path.name}.")
            return Checkpoint(path, arrays, manifest)
        if damaged:
            raise ResumeError(f"No checkpoint in {self.folder} is whole: {' '.join(damaged)} Give another folder.")
        return None

    @contextlib.contextmanager
    def running(self, model, source, callbacks, history, path: Path | None, best: dict | None):
        """Around the epochs of a fit: listens to SIGTERM, and waits for the file that is being written.

        Args:
            model, source, callbacks, history: those of the fit.
            path: of the checkpoint that it goes on from.
            best: what that one says of the best.
        """
        self._source, self._callbacks, self._history = source, callbacks, history
        self.resumed_from, self._best = path, best
        self._running, self._stopping, self._unsaved = True, False, 0
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self.set_model(model)
        try:
            with self._signals():
                yield
                self._wait()
                if self._stopping:  # it came after the last epoch was saved
                    self._leave()
        finally:
            self._running = False
            self._writer.shutdown()  # a file that is being written is ended
            self._source = self._callbacks = self._history = None

    def after_batch(self, epoch: int, batch: int, batches: int) -> None:
        """Saves where it is time.

        Args:
            epoch, batch: the position now, batches of the epoch that are done.
            batches: how many the last execution has done.
        """
        self._position = {"epoch": epoch, "batch": batch}
        self._unsaved += batches
        if self._saving is not None and self._saving.done():
            self._wait()  # raises what went wrong
        if any_worker(strategy_of(self.model), self._stopping):
            self._save_and_leave()
        elif self.save_freq != "epoch" and self._unsaved >= self.save_freq:
            self.save()

    def before_evaluation(self, epoch: int, batch: int, logs: dict) -> None:
        """Tells the position, and the logs: evaluation resets the metrics that they are made of."""
        self._position = {"epoch": epoch, "batch": batch, "logs": logs}

    def after_epoch(self, epoch: int) -> None:
        """Saves, with what is best so far."""
        self._position = {"epoch": epoch + 1, "batch": 0, "stopped": bool(self.model.stop_training)}
        if self.monitor is not None:
            self._compare(epoch)
        self.save()
        if any_worker(strategy_of(self.model), self._stopping):
            self._leave()

    def _compare(self, epoch):
        values = self._history.history.get(self.monitor, ())
        if not values:
            notices.warn(
                f"Resume: monitor={self.monitor!r} is not among the logs ({', '.join(self._history.history)})."
            )
            return
        value = float(values[-1])
        before = None if self._best is None else self._best["value"]
        if before is None or (value < before if self.mode == "min" else value > before):
            self._best = {"value": value, "epoch": epoch, "file": checkpoint_name(epoch + 1, 0)}

    # ---- files ------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Copies all values, and has them written while training goes on."""
        arrays = collect_arrays(self.model, self._callbacks)
        manifest = collect_manifest(self.model, self._source, self._callbacks, self._history)
        manifest |= {"batch": 0, "logs": None, "stopped": False, **self._position, "best": self._best}
        self._unsaved = 0
        if is_chief(strategy_of(self.model)):
            self._wait()
            self._saving = self._writer.submit(self._write, arrays, manifest)

    def _write(self, arrays, manifest) -> None:
        path = self.folder / checkpoint_name(manifest["epoch"], manifest["batch"])
        try:
            write_checkpoint(path, arrays, manifest)
        except OSError as error:
            whole = list_checkpoints(self.folder)
            left = f"{whole[-1].name} is whole: the same script goes on from it" if whole else "there is none before it"
            raise type(error)(
                error.errno, f"The checkpoint {path} could not be written ({error.strerror}); {left}."
            ) from error
        there = list_checkpoints(self.folder)
        kept = [one for one in there if one.name <= path.name][-self.keep :]  # a later one is damaged
        best = self.folder / manifest["best"]["file"] if manifest["best"] else None
        for old in there:
            if old not in kept and old != best:
                old.unlink(missing_ok=True)

    def _wait(self) -> None:
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def restore_best(self, model) -> float:
        """Gives a model the weights of the best epoch; returns that epoch's value of `monitor`.

        Raises:
            ValueError: where no best checkpoint was kept.
            ResumeError: for the checkpoint of another model.
        """
        newest = self.find(strategy_of(model))
        best = newest and newest.manifest["best"]
        if not best:
            raise ValueError(f"{self.folder} has no best checkpoint: give Resume a monitor, and fit.")
        path = self.folder / best["file"]
        arrays, _ = read_checkpoint(path)
        restore_weights(path, arrays, model)
        return best["value"]

    # ---- SIGTERM ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self):
        self._previous = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or self._previous == signal.SIG_IGN:
            yield  # no handler can be set in a thread, and none is wanted where the signal is ignored
            return
        signal.signal(signal.SIGTERM, self._stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._previous is None else self._previous)

    def _stop(self, number, frame):
        self._stopping = True

    def _save_and_leave(self) -> None:
        self.save()
        self._leave()

    def _leave(self) -> None:
        self._wait()
        print(f"Resume: saved to {self.folder} on SIGTERM; the same script goes on from there.", flush=True)
        if callable(self._previous):
            signal.signal(signal.SIGTERM, self._previous)
            self._previous(signal.SIGTERM, None)
        raise SystemExit(_EXIT_CODE)
