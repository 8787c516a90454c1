"""Trainings of `cases` by several processes of one program, and what each of them writes, on JAX.

    python process_cases.py FOLDER CELLS.json

is started once for each process, with the variables that `keras.distribution.initialize` reads. It writes
FOLDER/NUMBER-of-PROCESS.npz of every training, and what the first process alone is to write: `saved-N/`, `history-N/`,
`best-N.keras`; checkpoints are in a folder that both read.
"""

import json
import sys
from pathlib import Path

import cases
import numpy as np


def fit_texts(folder, index) -> dict:
    """A classifier fitted on texts, interrupted and resumed, and saved in every form."""
    import keras
    import tiny
    from jax.experimental import multihost_utils

    from tfxformer import tasks, training
    from tfxformer.training.devices.keras_distribution import share_order

    training.strategy("auto")
    keras.utils.set_random_seed(1)
    tokenizer = tiny.tokenizer(folder / f"words-{index}")
    for until in (1, 2):
        model = tiny.perturb(tasks.TextClassifier(tiny.backbone(), ["negative", "positive"], tokenizer=tokenizer))
        model.compile(training.AdamW(1e-3))
        multihost_utils.sync_global_devices(f"until {until}")  # the first has written its checkpoint
        callbacks = [
            training.Resume(folder / "checkpoints"),
            training.HistoryFiles(folder / f"history-{index}"),
            keras.callbacks.ModelCheckpoint(folder / f"best-{index}.keras", monitor="loss", save_best_only=True),
        ]
        history = model.fit(tiny.TEXTS, tiny.LABELS, epochs=until, batch_size=8, verbose=0, callbacks=callbacks)
    answers = model.predict(tiny.TEXTS[:5], verbose=0)
    model.save_pretrained(folder / f"saved-{index}")
    split = split_over_both(folder, index, tokenizer)
    np.random.seed(index)  # noqa: NPY002  (what Keras draws from, as each process' would be)
    share_order()
    keras.distribution.set_distribution(None)
    order = np.random.permutation(9)  # noqa: NPY002
    losses = np.array(history.history["loss"])
    return {"losses": losses, "answers": answers, "split": split, "order": order}


def split_over_both(folder, index, tokenizer) -> np.ndarray:
    """A classifier of which each process has a half, saved; what it answers."""
    import tiny

    from tfxformer import tasks, training

    training.strategy("auto", mesh=(1, 8))
    model = tiny.perturb(tasks.TextClassifier(tiny.backbone(), ["negative", "positive"], tokenizer=tokenizer))
    assert not all(one.value.is_fully_replicated for one in model.variables)
    try:
        model.save(folder / f"split-{index}.keras")
    except ValueError as error:
        assert "save_pretrained" in str(error)
    else:
        raise AssertionError("Keras wrote a model that is split over hosts")
    model.save_pretrained(folder / f"split-{index}")
    return model.predict(tiny.TEXTS[:5], verbose=0)


def main(folder, cells) -> None:
    import jax
    import keras

    from tfxformer import training

    training.strategy("multiworker")
    keras.distribution.set_distribution(None)
    index = jax.process_index()
    for number, one in enumerate(json.loads(Path(cells).read_text(encoding="utf-8"))):
        np.savez(folder / f"{number}-of-{index}.npz", **cases.train(one))
    (folder / f"words-{index}").mkdir()
    np.savez(folder / f"texts-of-{index}.npz", **fit_texts(folder, index))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
