"""Tasks fitted on texts go on where they were: the same texts, masks and schedule."""

import keras
import numpy as np
import pytest
import tiny

from tfxformer import tasks, training

pytestmark = [pytest.mark.usefixtures("plain_kernels"), pytest.mark.road]
TEXTS = tiny.TEXTS[:16]  # two batches


class Interruption(BaseException):
    """What no fit catches."""


class Interrupt(keras.callbacks.Callback):
    """Ends fit at a batch of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.wanted = (epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.wanted:
            raise Interruption


def classifier(tokenizer):
    keras.utils.set_random_seed(0)
    backbone = tiny.backbone(encoder__dropout=0.2, encoder__num_layers=1)
    return tasks.TextClassifier(backbone, labels=["negative", "positive"], tokenizer=tokenizer)


def masked(tokenizer):
    keras.utils.set_random_seed(0)
    backbone = tiny.backbone(encoder__dropout=0.2, encoder__num_layers=1)
    return tiny.perturb(tasks.MaskedLM(backbone, tokenizer=tokenizer, masking_rate=0.3))


@pytest.mark.parametrize(
    "make, labels",
    [
        pytest.param(classifier, tiny.LABELS[:16], id="classifier", marks=pytest.mark.slow),
        pytest.param(masked, None, id="masked"),
    ],
)
def test_a_task_on_texts_goes_on_with_its_default_schedule(make, labels, tiny_tokenizer, tmp_path):
    def fit(folder, *callbacks):
        model = make(tiny_tokenizer)
        model.compile(learning_rate=0.01, jit_compile=False)
        callbacks = [training.Resume(folder, save_freq=1), *callbacks]
        history = model.fit(TEXTS, labels, 8, 2, validation_data=(TEXTS[:6], labels and labels[:6]),
                            callbacks=callbacks, verbose=0)  # fmt: skip
        return model, history.history

    whole, history = fit(tmp_path / "whole")
    with pytest.raises(Interruption):
        fit(tmp_path / "run", Interrupt(1, 0))
    model, resumed = fit(tmp_path / "run")
    assert resumed == history
    assert int(model.optimizer.iterations) == int(whole.optimizer.iterations) == 4
    assert float(model.optimizer.learning_rate) == float(whole.optimizer.learning_rate) == 0.0
    for one, other in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    longer = make(tiny_tokenizer)
    longer.compile(learning_rate=0.01, jit_compile=False)
    with pytest.raises(training.ResumeError, match="total_steps 4 in the checkpoint, 6 here"):
        longer.fit(TEXTS, labels, 8, 3, callbacks=[training.Resume(tmp_path / "run")], verbose=0)
