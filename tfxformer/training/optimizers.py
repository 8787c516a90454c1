"""AdamW as Transformers are fine-tuned with it."""

from __future__ import annotations

import keras

from tfxformer.training.schedules import WarmupLinear

# Leaf names of variables that keep their scale: biases, and the gains and shifts of norms.
NO_DECAY = ("bias", "beta", "gamma", "scale")


def _unwrap(variable):
    """The TensorFlow variable of a Keras one."""
    return variable.value if isinstance(variable, keras.Variable) else variable


@keras.saving.register_keras_serializable("tfxformer")
class AdamW(keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` (Loshchilov and Hutter, 2019, arXiv:1711.05101), three things put right.

    - Which variables do not decay is part of the config: Keras forgets it when a compiled model is saved.
    - Embedding gradients are made dense before their norm is taken. Keras squares the rows of one id before
      summing them, and so clips by a wrong global norm.
    - On TensorFlow the moments and the variable are updated in one pass over memory, not in fifteen.

    Args:
        no_decay: leaf names of variables without weight decay.
        others: as `keras.optimizers.AdamW` has them.
    """

    def __init__(self, learning_rate=0.001, weight_decay=0.01, no_decay=NO_DECAY, name="adamw", **kwargs):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.no_decay = tuple(no_decay)

    def _use_weight_decay(self, variable):
        # A TensorFlow variable's name is its leaf, then "/replica_1" on a second replica, then ":0".
        leaf = variable.name.partition(":")[0].partition("/replica_")[0].rpartition("/")[2]
        return leaf not in self.no_decay and super()._use_weight_decay(variable)

    def _apply_weight_decay(self, variables):
        if not self._in_one_pass:
            super()._apply_weight_decay(variables)

    @property
    def _in_one_pass(self):
        return keras.backend.backend() == "tensorflow" and not self.amsgrad

    def _clip_gradients(self, grads):
        if keras.backend.backend() != "tensorflow":
            return super()._clip_gradients(grads)
        import tensorflow as tf

        grads = [tf.convert_to_tensor(gradient) for gradient in grads]  # sums the rows of one id
        if not self.global_clipnorm or self.clipnorm:
            return super()._clip_gradients(grads)
        # l2_loss squares and sums in one pass; a norm that is not finite spoils every gradient, as in Keras.
        norm = tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(tf.cast(gradient, "float32")) for gradient in grads]))
        scale = self.global_clipnorm / tf.maximum(norm, self.global_clipnorm) + (norm - norm)
        return [gradient * tf.cast(scale, gradient.dtype) for gradient in grads]

    def update_step(self, gradient, variable, learning_rate):
        if not self._in_one_pass:
            return super().update_step(gradient, variable, learning_rate)
        import tensorflow as tf

        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        variable, momentum, velocity = map(_unwrap, (variable, momentum, velocity))
        dtype = variable.dtype
        rate = tf.cast(learning_rate, dtype)
        if self._use_weight_decay(variable):
            variable.assign_sub(variable * (rate * tf.cast(self.weight_decay, dtype)))
        step = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = (tf.cast(beta, dtype) for beta in (self.beta_1, self.beta_2))
        return tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.handle,
            v=velocity.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )

    def get_config(self):
        return {**super().get_config(), "no_decay": self.no_decay}


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
