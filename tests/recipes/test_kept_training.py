"""A training that is run once."""

from dataclasses import dataclass, replace

import numpy as np
import tiny

from tfxformer import tasks
from tfxformer.recipes import kept_training


@dataclass(frozen=True)
class Settings:
    epochs: int = 2
    lengths: tuple[int, ...] = (8, 16)


def test_it_is_kept_for_its_settings_alone(tiny_tokenizer, tmp_path, eager, plain_kernels):
    task = tasks.TextClassifier(tiny.backbone(encoder__num_layers=1), ["a", "b"], tokenizer=tiny_tokenizer)
    task.compile(learning_rate=1e-3)
    labels = ["a", "b"] * 4
    assert kept_training.kept(tmp_path, Settings()) is None
    found = kept_training.fit(
        task, tiny.TEXTS[:8], labels, folder=tmp_path, settings=Settings(), save_every=2, facts={"texts": 8},
        epochs=2, batch_size=4, verbose=0,
    )  # fmt: skip
    assert found["settings"] == {"epochs": 2, "lengths": [8, 16]}  # as the file has it
    assert (found["texts"], found["parameters"], found["resumed_from"]) == (8, task.count_params(), None)
    assert len(found["history"]["loss"]) == 2
    assert kept_training.kept(tmp_path, Settings()) == found
    assert kept_training.kept(tmp_path, replace(Settings(), epochs=3)) is None
    again = tasks.TextClassifier.from_pretrained(tmp_path / kept_training.MODEL)
    np.testing.assert_array_equal(again.predict(tiny.TEXTS[:3], verbose=0), task.predict(tiny.TEXTS[:3], verbose=0))
