"""Pruning as a Keras callback: exact after each step of `fit`, and gone when `fit` ends."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import keras

from tfxformer.arguments import notices
from tfxformer.backend import needs_tensorflow, strategy_of
from tfxformer.backend import tensorflow as tf
from tfxformer.compression.pruning.held_kernels import HoldingCallback
from tfxformer.compression.pruning.sparsity_schedules import ConstantSparsity, Schedule
from tfxformer.compression.weights.sparsity import count_zeros
from tfxformer.training.optimizers.optimizers import updating_optimizer
from tfxformer.training.step.gradients import see_gradients

METHODS = ("magnitude", "movement")


class Prune(HoldingCallback):
    """Prunes the kernels of any Keras 3 model while `fit` trains it, on tfmot's schedules and engine.

    A constraint on each kernel, applied by the optimizer inside the compiled step, holds the pruned weights
    at exactly zero after every update; so it does under jit_compile, steps_per_execution, mixed precision,
    distribution strategies, EMA, clipping and gradient accumulation. The model keeps nothing of it: a saved
    file has zeros and no mask, and the kernels' own constraints come back. So a later fit trains the zeros as any
    weight, unless one of its callbacks keeps them: `QuantizationAware` and `Cluster` do, as does another
    `Prune(ConstantSparsity(the same, begin_step=0))`.

    Steps are the optimizer's updates (`optimizer.iterations`, which `.keras` files keep): a reloaded model
    resumes as if never stopped, a fresh optimizer starts the schedule anew. If the schedule has acted before
    the fit begins, the kernels are brought to that sparsity at once; if that takes weights from a trained
    model, a warning says so. History gets "sparsity", the fraction of zeros over the pruned kernels.

    What brings back other weights at the end of `fit` brings back their sparsity: give
    `EarlyStopping(restore_best_weights=True)` a `start_from_epoch` after the schedule's end.

    method="movement" prunes the weights that training moves towards zero (Sanh et al., 2020, arXiv:2005.07683, who
    found it better than magnitude in fine-tuning at high sparsity). Each update adds -gradient * weight to a weight's
    score; weights that are gone still collect, and come back with the value they had. Begin the schedule some hundred
    updates in. Scores are no part of a saved model: `training.Resume` keeps them, so that a killed training goes on
    as if never stopped; a reloaded `.keras` file keeps its zeros, and scores begin anew.

    Args:
        schedule: PolynomialDecay or ConstantSparsity of this package.
        block_size: (height, width) of the blocks pruned as one, on the kernel as a matrix [in, out]: (4, 1)
            is four along the input axis. Blocks at the edge may be smaller.
        block_pooling: "AVG" or "MAX", the magnitude of a block.
        m_by_n: (m, n): m zeros in every n consecutive weights along the input axis, e.g. (2, 4); needs
            ConstantSparsity(m / n, ...), which says when the mask is chosen.
        method: "magnitude", the smallest go; or "movement", those that move towards zero.
        layers: `layers(layer) -> bool` says which Dense, EinsumDense and convolution layers to prune; None is
            all but the output layer. Frozen kernels, LoRA's factors and embeddings are never pruned.

    Raises TypeError, ValueError for what is no schedule, and for blocks and methods that there are not.
    """

    def __init__(
        self,
        schedule: Schedule,
        block_size: tuple[int, int] = (1, 1),
        block_pooling: str = "AVG",
        m_by_n: tuple[int, int] | None = None,
        layers: Callable[[keras.layers.Layer], bool] | None = None,
        method: str = "magnitude",
    ):
        super().__init__(layers)
        if not isinstance(schedule, Schedule):
            raise TypeError(
                "Prune wants tfxformer.compression.PolynomialDecay or ConstantSparsity; got "
                f"{type(schedule).__module__}.{type(schedule).__name__}."
            )
        if block_pooling not in ("AVG", "MAX"):
            raise ValueError(f'Prune: block_pooling must be "AVG" or "MAX"; got {block_pooling!r}.')
        if method not in METHODS:
            raise ValueError(f"Prune: unknown method {method!r}; known: {', '.join(METHODS)}.")
        self.schedule, self.method = schedule, method
        self.block_size = _pair("block_size", block_size)
        self.block_pooling = block_pooling
        self.m_by_n = None if m_by_n is None else _pair("m_by_n", m_by_n)
        self._check_m_by_n()

    def on_train_begin(self, logs=None):
        needs_tensorflow("Prune, whose masks are tfmot's,")
        _updating_optimizer(self.model)
        super().on_train_begin(logs)

    def engine_of(self, kernel):
        from tfxformer.compression.pruning.tfmot_engine import KernelPruning, MovementPruning  # loads tf_keras: seconds

        optimizer, moving = _updating_optimizer(self.model), self.method == "movement"
        form = self.schedule, self.block_size, self.block_pooling, self.m_by_n
        engine = (MovementPruning if moving else KernelPruning)(kernel, lambda: _step_of_this_update(optimizer), *form)
        if moving:
            see_gradients(optimizer, kernel.variable, engine.see_gradient)
        return engine

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["sparsity"] = self._zeros() / self._parameters()

    def resume_state(self) -> dict:
        """What `training.Resume` keeps of it, arrays by name: magnitudes are those of the weights, movement is not."""
        return super().resume_state() if self.method == "movement" else {}

    def _check_m_by_n(self) -> None:
        if self.m_by_n is None:
            return
        if self.method == "movement":
            raise ValueError('Prune: m_by_n is chosen by magnitude; with method="movement" give block_size.')
        zeros, group = self.m_by_n
        if self.block_size != (1, 1):
            raise ValueError(f"Prune: give block_size or m_by_n, not both; got {self.block_size} and {self.m_by_n}.")
        if zeros >= group:
            raise ValueError(f"Prune: m_by_n=(m, n) is m zeros among n weights, m < n; got {self.m_by_n}.")
        schedule = self.schedule
        if not isinstance(schedule, ConstantSparsity) or abs(schedule.target_sparsity - zeros / group) > 1e-6:
            raise ValueError(
                f"Prune: m_by_n={self.m_by_n} makes {zeros}/{group} zeros at once, no other sparsity; give "
                f"ConstantSparsity({zeros / group:g}, begin_step=...), not {schedule}."
            )

    def begin(self):
        """Brings masks and weights to where the schedule stands; of a resumed model this changes nothing."""
        done = _updates_done(_updating_optimizer(self.model))
        acted = self.schedule.last_acting_step(done)
        if acted is None:
            self._warn_if_too_late(done)
            return
        before = self._zeros()
        with strategy_of(self.model).scope():
            for engine in self.engines:
                engine.start_at(acted)
        self.bring_into_form()
        after = self._zeros()
        if done and after > before:
            total = self._parameters()
            notices.warn(
                f"Prune: the optimizer has made {done} updates already, and {self.schedule} acted at update "
                f"{acted}: zeros went from {before / total:.1%} to {after / total:.1%} at once. To prune "
                f"from here on, set begin_step={done}, or compile the model again (steps start at 0)."
            )

    def _warn_if_too_late(self, done: int) -> None:
        steps = self.params.get("steps") if self.params else None
        if steps is None:  # a generator of unknown length
            return
        last = done + steps * self.params["epochs"] // (_accumulation_steps(self.model) or 1)
        if last < self.schedule.begin_step:
            notices.warn(
                f"Prune: this fit ends at update {last} of the optimizer, before begin_step="
                f"{self.schedule.begin_step}: nothing will be pruned. Lower begin_step or train longer."
            )

    def _zeros(self) -> int:
        return sum(map(count_zeros, self.variables))

    def _parameters(self) -> int:
        return sum(variable.value.shape.num_elements() for variable in self.variables)


def _updating_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer that counts the updates: under mixed_float16 the one inside LossScaleOptimizer."""
    optimizer = updating_optimizer(getattr(model, "optimizer", None))
    if not hasattr(optimizer, "iterations"):
        raise ValueError(
            "Prune counts its steps by optimizer.iterations; the model's optimizer is "
            f"{optimizer!r}. Compile the model with a Keras optimizer."
        )
    return optimizer


def _accumulation_steps(model: keras.Model) -> int | None:
    by_model = getattr(model, "gradient_accumulation_steps", None)  # a training.DistributedModel
    return by_model or getattr(_updating_optimizer(model), "gradient_accumulation_steps", None)


def _updates_done(optimizer: keras.optimizers.Optimizer) -> int:
    return int(tf.cast(optimizer.iterations, tf.int64))  # a mirrored variable has no int()


def _step_of_this_update(optimizer: keras.optimizers.Optimizer) -> tf.Tensor:
    """The number, from 1, of the update whose constraints run now; -1 where gradients only accumulate."""
    accumulation = getattr(optimizer, "gradient_accumulation_steps", None)
    if not accumulation:
        return tf.cast(optimizer.iterations, tf.int64) + 1  # Keras counts after the constraints
    batches = tf.cast(optimizer._iterations, tf.int64) + 1  # only the private counter sees every batch
    is_update = tf.equal(batches % accumulation, 0)
    return tf.where(is_update, batches // accumulation, tf.constant(-1, tf.int64))


def _pair(name: str, value) -> tuple[int, int]:
    try:
        first, second = value
        valid = all(isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in (first, second))
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"Prune: {name} must be two positive integers; got {value!r}.")
    return int(first), int(second)
