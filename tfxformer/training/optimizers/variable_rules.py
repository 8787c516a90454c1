"""What the optimizers share: which variables decay, how fast each layer learns, and norms of dense gradients."""

from __future__ import annotations

import re

import keras
from keras import ops

from tfxformer.arguments.keywords import KnownKeywords

# Leaf names of variables that keep their scale: biases, and the gains and shifts of norms.
NO_DECAY = ("bias", "beta", "gamma", "scale")
# The layers of our models from the inputs up; all that is named here nowhere (final norm, pooler, head) is the top.
EMBEDDINGS = ("token_embedding", "position_embedding", "segment_embedding", "embedding_norm", "embedding_projection")
_EMBEDDING = re.compile(rf"((encoder|decoder)_)?({'|'.join(EMBEDDINGS)})")  # with its stack's name where there are two
BLOCKS = ("encoder_block", "decoder_block")  # of an encoder-decoder, the decoder stands on the encoder

_BLOCK = re.compile(rf"({'|'.join(BLOCKS)})_(\d+)")


def layer_depths(paths: list[str]) -> tuple[list[int], int]:
    """How far each variable is from the inputs, by the names of layers in its path.

    Embeddings are 0, the blocks 1, 2, ... in their order, everything else is at the top, one more than the last
    block. A head that is tied to the table of the embeddings is that table: 0.

    Returns:
        (the depth of each path, the depth of the top).

    Raises:
        ValueError: where no path names a block.
    """
    blocks = [next(filter(None, map(_BLOCK.fullmatch, path.split("/"))), None) for path in paths]
    keys = [block and (BLOCKS.index(block[1]), int(block[2])) for block in blocks]
    order = sorted(set(filter(None, keys)))
    if not order:
        raise ValueError(
            f"layer_decay finds no layer named {' or '.join(f'{name}_0' for name in BLOCKS)} in the variables "
            f"{', '.join(paths[:5])}...: it knows the names of tfxformer's models. Use layer_decay=1.0."
        )
    top = 1 + len(order)
    depths = [
        1 + order.index(key) if key else 0 if any(map(_EMBEDDING.fullmatch, path.split("/"))) else top
        for key, path in zip(keys, paths, strict=True)
    ]
    return depths, top


WAY_OUT = "compile('adamw', learning_rate=5e-5)"  # of a schedule, to a rate that can be set


class VariableRules(KnownKeywords):
    """Put in front of a Keras optimizer: rules by variable that are part of its config, and dense gradients.

    - Which variables do not decay is part of the config: Keras forgets it when a compiled model is saved. Decay is
      decoupled from the gradient: variable -= rate * weight_decay * variable.
    - The rate of a layer is `layer_decay` times that of the layer above it (Clark et al., 2020, arXiv:2003.10555;
      the factors are those of Bao et al., 2021, arXiv:2106.08254): the head's is the full one.
    - Embedding gradients are made dense before their norm is taken. Keras squares the rows of one id before
      summing them, and so clips by a wrong global norm.

    Args:
        no_decay: leaf names of variables without weight decay.
        layer_decay: float above 0, 1.0 for one rate everywhere; see `layer_depths`.
        others: as the Keras optimizer has them.
    """

    def __init__(self, *args, no_decay=NO_DECAY, layer_decay=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        if not layer_decay > 0:
            raise ValueError(f"layer_decay is the factor between two layers' rates, above 0; got {layer_decay!r}.")
        self.no_decay = tuple(no_decay)
        self.layer_decay = float(layer_decay)
        self._layer_rates = ()
        self._shared = None  # what the updates of one step have in common, while it is made

    @property
    def learning_rate(self):
        """The rate of the next update; to set it, it must not be a schedule."""
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        schedule = keras.optimizers.schedules.LearningRateSchedule
        if isinstance(self._learning_rate, schedule) and not (
            isinstance(learning_rate, schedule) or callable(learning_rate)
        ):
            raise TypeError(
                f"learning_rate is a {type(self._learning_rate).__name__} of the steps, which cannot be set to a "
                f"number: {WAY_OUT} trains with a constant rate that can."
            )
        keras.optimizers.Optimizer.learning_rate.fset(self, learning_rate)

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._set_layer_rates(variables)

    def _set_layer_rates(self, variables):
        if self.layer_decay != 1.0:
            depths, top = layer_depths([getattr(variable, "path", variable.name) for variable in variables])
            self._layer_rates = tuple(self.layer_decay ** (top - depth) for depth in depths)

    def _rate(self, variable, learning_rate):
        """The rate of a variable's layer, in the variable's dtype."""
        rate = ops.cast(learning_rate, variable.dtype)
        return rate * self._layer_rates[self._get_variable_index(variable)] if self._layer_rates else rate

    def _use_weight_decay(self, variable):
        # A TensorFlow variable's name is its leaf, then "/replica_1" on a second replica, then ":0".
        leaf = variable.name.partition(":")[0].partition("/replica_")[0].rpartition("/")[2]
        return leaf not in self.no_decay and super()._use_weight_decay(variable)

    def _apply_weight_decay(self, variables):
        """Nothing: `update_step` does it, where the rate of the layer is known."""

    def _decay(self, variable, rate):
        """Takes rate * weight_decay of a variable away, where it decays."""
        if self.weight_decay and self._use_weight_decay(variable):
            self.assign_sub(variable, variable * (rate * ops.cast(self.weight_decay, variable.dtype)))

    def _backend_update_step(self, *args, **kwargs):
        vars(self)["_shared"] = {}  # past Keras, which would track it
        try:
            return super()._backend_update_step(*args, **kwargs)
        finally:
            self._shared = None  # not what it was before: replicas are traced in turns

    def shared(self, make, *key):
        """`make(*key)`, made once in each update of all variables; each time where one is updated alone."""
        if self._shared is None:
            return make(*key)
        name = (make.__name__, *key)
        if name not in self._shared:
            self._shared[name] = make(*key)
        return self._shared[name]

    def update_step(self, gradient, variable, learning_rate):
        rate = self._rate(variable, learning_rate)
        self._decay(variable, rate)
        super().update_step(gradient, variable, rate)

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

    def get_config(self):
        return {**super().get_config(), "no_decay": self.no_decay, "layer_decay": self.layer_decay}
