"""The optimizers that Transformers are trained with, by name."""

from __future__ import annotations

import keras
from keras import ops

from tfxformer.training.optimizers.schedules import WarmupLinear
from tfxformer.training.optimizers.variable_rules import NO_DECAY, VariableRules


def updating_optimizer(optimizer):
    """The optimizer that updates the weights: under loss scaling the one inside."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


def _unwrap(variable):
    """The TensorFlow variable of a Keras one."""
    return variable.value if isinstance(variable, keras.Variable) else variable


@keras.saving.register_keras_serializable("tfxformer")
class AdamW(VariableRules, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` (Loshchilov and Hutter, 2019, arXiv:1711.05101) with `VariableRules`.

    On TensorFlow the moments and the variable are updated in one pass over memory, not in fifteen.
    """

    def __init__(self, learning_rate=0.001, weight_decay=0.01, no_decay=NO_DECAY, name="adamw", **kwargs):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, no_decay=no_decay, name=name, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            return super().update_step(gradient, variable, learning_rate)
        import tensorflow as tf

        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        variable, momentum, velocity = map(_unwrap, (variable, momentum, velocity))
        rate = self._rate(variable, learning_rate)
        self._decay(variable, rate)
        shared = self.shared(self._scalars, variable.dtype, variable.device)
        return tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.handle,
            v=velocity.handle,
            lr=rate,
            grad=tf.cast(gradient, variable.dtype),
            **shared,
        )

    def _scalars(self, dtype, device) -> dict:
        """What the updates of all variables of a dtype on a device read."""
        import tensorflow as tf

        step = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2, epsilon = (tf.cast(value, dtype) for value in (self.beta_1, self.beta_2, self.epsilon))
        powers = {"beta1_power": beta_1**step, "beta2_power": beta_2**step}
        return {**powers, "beta1": beta_1, "beta2": beta_2, "epsilon": epsilon}


@keras.saving.register_keras_serializable("tfxformer")
class Lamb(VariableRules, keras.optimizers.Lamb):
    """LAMB (You et al., 2020, arXiv:1904.00962, algorithm 2) with `VariableRules`, for large batches.

    In Keras weight decay stands outside of the trust ratio, so that a layer's step is not in proportion to its
    weights. Here it is inside, as in the paper. Variables that do not decay (norms, biases) step as Adam does, without
    a ratio, as in the authors' implementation: a bias that begins at 0 would hardly move.
    """

    def __init__(self, learning_rate=0.001, weight_decay=0.01, epsilon=1e-6, name="lamb", **kwargs):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, epsilon=epsilon, name=name, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        gradient = ops.cast(gradient, variable.dtype)
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (ops.square(gradient) - velocity) * (1 - self.beta_2))
        step = ops.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (ops.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        first = momentum / (1 - ops.power(beta_1, step))
        second = velocity / (1 - ops.power(beta_2, step))
        update = first / (ops.sqrt(second) + self.epsilon)
        rate = self._rate(variable, learning_rate)
        if self._use_weight_decay(variable):
            update = update + variable * (self.weight_decay or 0.0)
            length, goal = (ops.sqrt(ops.sum(ops.square(value))) for value in (update, variable))
            usable = ops.logical_and(length > 0, goal > 0)
            rate = rate * ops.where(usable, goal / ops.where(usable, length, 1), 1)
        self.assign_sub(variable, rate * update)


@keras.saving.register_keras_serializable("tfxformer")
class Lion(VariableRules, keras.optimizers.Lion):
    """`keras.optimizers.Lion` (Chen et al., 2023, arXiv:2302.06675) with `VariableRules`.

    Its steps are signs: rates a third to a tenth of AdamW's, with weight decay as many times larger.
    """

    def __init__(self, learning_rate=0.0001, weight_decay=0.1, name="lion", **kwargs):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs)


@keras.saving.register_keras_serializable("tfxformer")
class Adafactor(VariableRules, keras.optimizers.Adafactor):
    """Adafactor without a first moment (Shazeer and Stern, 2018, arXiv:1804.04235, algorithm 4), with `VariableRules`.

    Put right against Keras: a matrix keeps its row and column means only, no velocity of its own size (which is what
    Adafactor is for); and only with `relative_step` is the rate at most 1 / sqrt(step), in Keras always. The rate is
    relative to the root mean square of a variable, that of weight decay too, as transformers has it.

    Args:
        relative_step: the rate is at most 1 / sqrt(step), which the paper has with learning_rate=0.01.
    """

    def __init__(self, learning_rate=0.001, weight_decay=0.0, relative_step=False, name="adafactor", **kwargs):
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, relative_step=relative_step, name=name, **kwargs
        )

    def build(self, variables):
        if self.built:
            return
        keras.optimizers.Optimizer.build(self, variables)  # not Keras' Adafactor, which keeps a velocity everywhere
        self._set_layer_rates(variables)
        self._r, self._c, self._v = [], [], []
        for variable in variables:
            shape, matrix = tuple(variable.shape), len(variable.shape) >= 2
            shapes = {"row": shape[:-1], "column": shape[:-2] + shape[-1:]} if matrix else {"velocity": shape}
            leaf = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
            made = {
                name: self.add_variable(size, dtype=variable.dtype, name=f"{leaf}_{name}")
                for name, size in shapes.items()
            }
            for store, name in ((self._r, "row"), (self._c, "column"), (self._v, "velocity")):
                store.append(made.get(name))

    def update_step(self, gradient, variable, learning_rate):
        rows, columns, velocity = (store[self._get_variable_index(variable)] for store in (self._r, self._c, self._v))
        gradient = ops.cast(gradient, variable.dtype)
        square = ops.square(gradient) + self.epsilon_1
        step = ops.cast(self.iterations + 1, variable.dtype)
        new = ops.power(step, self.beta_2_decay)  # 1 - beta_2
        if velocity is None:
            self.assign_add(rows, (ops.mean(square, axis=-1) - rows) * new)
            self.assign_add(columns, (ops.mean(square, axis=-2) - columns) * new)
            share = rows / ops.mean(rows, axis=-1, keepdims=True)
            # Two roots: rows and columns of squares near epsilon_1 would multiply to less than float32 has.
            update = gradient * ops.expand_dims(ops.rsqrt(share), -1) * ops.expand_dims(ops.rsqrt(columns), -2)
        else:
            self.assign_add(velocity, (square - velocity) * new)
            update = gradient * ops.rsqrt(velocity)
        update = update / ops.maximum(1.0, self._rms(update) / self.clip_threshold)
        rate = self._rate(variable, learning_rate)
        if self.relative_step:
            rate = ops.minimum(rate, ops.rsqrt(step))
        rate = rate * ops.maximum(ops.cast(self.epsilon_2, variable.dtype), self._rms(variable))
        self._decay(variable, rate)
        self.assign_sub(variable, rate * update)


@keras.saving.register_keras_serializable("tfxformer")
class SGD(VariableRules, keras.optimizers.SGD):
    """`keras.optimizers.SGD`, its decay decoupled (arXiv:1711.05101, algorithm 1), with `VariableRules`."""

    def __init__(self, learning_rate=0.01, momentum=0.9, weight_decay=0.0, name="sgd", **kwargs):
        super().__init__(learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay, name=name, **kwargs)


OPTIMIZERS = {"adamw": AdamW, "lamb": Lamb, "lion": Lion, "adafactor": Adafactor, "sgd": SGD}


def optimizer(name, learning_rate, *, global_clipnorm=1.0, **kwargs):
    """An optimizer by name, with the rules of `VariableRules`.

    Args:
        name: "adamw", "lamb", "lion", "adafactor" or "sgd".
        learning_rate: float, or a schedule (see `schedule`).
        global_clipnorm: float or None, the norm that all gradients together are clipped to.
        kwargs: of the class: weight_decay, no_decay, layer_decay, use_ema and ema_momentum, beta_1, ...

    Raises:
        ValueError: for a name that is not there.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"No optimizer is named {name!r}; there are {', '.join(OPTIMIZERS)}.")
    return OPTIMIZERS[name](learning_rate, global_clipnorm=global_clipnorm, **kwargs)


def adamw(total_steps, learning_rate=5e-5, warmup=0.1, weight_decay=0.01, global_clipnorm=1.0):
    """The optimizer to fine-tune with: AdamW without decay on norms and biases, warmup then linear decay.

    Args:
        total_steps: int, updates in all.
        learning_rate: float, the highest rate.
        warmup: float, the share of updates that the rate rises; or an int, their number.
        weight_decay: float, per unit of learning rate.
        global_clipnorm: float or None, the norm that all gradients together are clipped to.

    Under the policy mixed_float16, `compile` wraps it in Keras' LossScaleOptimizer.
    """
    return AdamW(
        learning_rate=WarmupLinear(learning_rate, total_steps, warmup),
        weight_decay=weight_decay,
        epsilon=1e-8,
        global_clipnorm=global_clipnorm,
    )
