"""Moving averages of weights (EMA), which Keras' optimizers keep with `use_ema=True`."""

from __future__ import annotations

import keras


class SwapEMAWeights(keras.callbacks.SwapEMAWeights):
    """`keras.callbacks.SwapEMAWeights`, put right: evaluation and prediction with the averages, then the weights back.

    Keras swaps by adding and subtracting, which rounds the weights at every evaluation, and leaves the averages in the
    model after `predict`. Here values are exchanged, and put back.

    The averages are the optimizer's, every one of ours has them: `optimizer("adamw", rate, use_ema=True,
    ema_momentum=0.999)`. An average begins as the weight after the first update; at the end of `fit` Keras makes it
    the weight. With the accumulation of Keras' own step it moves at every batch, not at every update.

    Args:
        swap_on_epoch: the averages are in the model at the end of an epoch too, for callbacks that come after this
            one (`ModelCheckpoint`).
    """

    def _tf_swap_variables(self, optimizer):
        import tensorflow as tf

        def exchange(variable, average):
            value = tf.identity(variable)
            variable.assign(average)
            average.assign(value)

        averages = optimizer._model_variables_moving_average
        for variable, average in zip(optimizer._trainable_variables, averages, strict=True):
            variable, average = (getattr(one, "value", one) for one in (variable, average))
            optimizer._distribution_strategy.extended.update(variable, exchange, args=(average,))

    def on_predict_end(self, logs=None):
        if self._ema_weights_in_model:
            self._swap_variables()
            self._ema_weights_in_model = False
