"""A callback that keeps what callbacks see inside the training steps; for tests on either backend."""

import time

import keras

from tfxformer.training.callbacks.gradient_norms import GradientNorms


class Watch(keras.callbacks.Callback):
    """The norms of each update; a clock on which each batch takes a second."""

    def on_train_begin(self, logs=None):
        self.watched, self.norms, self.now = GradientNorms(self.model, by_layer=True), [], 0.0
        self.clock, time.perf_counter = time.perf_counter, lambda: self.now

    def on_train_batch_end(self, batch, logs=None):
        self.now += 1.0
        sums, updates = self.watched.take()
        if updates:
            self.norms.append([*sums.tolist(), updates])

    def on_train_end(self, logs=None):
        self.watched.end()
        time.perf_counter = self.clock
