"""Trainings with a `Resume`, run in a process of their own, that may kill itself at a given moment.

    python resume_cases.py FOLDER CASES.json [OUTPUT.npz]

CASES.json is a list of `case(...)`; each trains in FOLDER/name. With OUTPUT.npz each is trained once more, without any
interruption, in FOLDER/name-whole; the file gets weights, history and optimizer of both ("name/resumed/...",
"name/whole/...").
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

ROWS, BATCH, LENGTH, VOCABULARY = 42, 8, 6, 20
DEFAULTS = {
    "name": "case",
    "strategy": "none",
    "data": "arrays",  # "arrays", "dataset", "shuffled", "repeated", "python", "epochs"
    "accumulation": 1,
    "jit": False,
    "steps_per_execution": 1,
    "dtype": None,
    "ema": False,
    "epochs": 3,
    "save_freq": 1,
    "kill": None,  # ["batch", n]: after n executions; ["save", n]: while the n-th file is written; ["epoch", n]
    "signal": int(signal.SIGKILL),
    "worker": 0,  # the one that is killed
    "rows": ROWS,
    "verbose": 0,
    "differ": False,  # try first with other data and arguments on one worker
}


def case(**options):
    """A training: the defaults above but for `options`."""
    assert set(options) <= set(DEFAULTS), options
    return {**DEFAULTS, **options}


def arrays(rows=ROWS):
    """(ids, labels)."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, VOCABULARY, (rows, LENGTH)).astype("int32")
    return ids, ids.sum(-1).astype("int32") % 5


def data(options):
    """The arguments of `fit` that are data."""
    import keras

    from tfxformer import training
    from tfxformer.backend import on_jax

    ids, labels = arrays(options["rows"])

    class Changing(keras.utils.PyDataset):
        """Batches that are other ones in every epoch."""

        epoch = 0

        def __len__(self):
            return -(-len(ids) // BATCH)

        def __getitem__(self, index):
            rows = np.random.default_rng([7, self.epoch]).permutation(len(ids))[index * BATCH : (index + 1) * BATCH]
            return ids[rows], labels[rows]

        def on_epoch_end(self):
            self.epoch += 1

    def begun(epoch, first):
        rows = np.random.default_rng([3, epoch]).permutation(len(ids))[first * BATCH :]
        if on_jax():
            return ((ids[some], labels[some]) for some in np.split(rows, range(BATCH, len(rows), BATCH)))
        return dataset(rows).batch(BATCH)

    def dataset(rows=slice(None)):
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices((ids[rows], labels[rows]))

    makers = {
        "arrays": lambda: {"x": ids, "y": labels, "batch_size": BATCH},
        "dataset": lambda: {"x": dataset().batch(BATCH)},
        "shuffled": lambda: {"x": dataset().shuffle(16, seed=5).batch(BATCH)},
        "repeated": lambda: {"x": dataset().shuffle(16, seed=5).repeat().batch(BATCH), "steps_per_epoch": 4},
        "python": lambda: {"x": Changing()},
        "epochs": lambda: {"x": training.Epochs(begun, -(-len(ids) // BATCH))},
    }
    return makers[options["data"]]()


def model(options):
    """Embedding, dropout, two dense layers, compiled."""
    import keras

    from tfxformer import training

    keras.utils.set_random_seed(0)
    policy = options["dtype"]
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(VOCABULARY, 8, dtype=policy)(inputs)
    x = keras.layers.Dropout(0.3, dtype=policy)(keras.layers.Flatten(dtype=policy)(x))
    x = keras.layers.Dense(16, "gelu", dtype=policy)(x)
    made = training.DistributedModel(inputs, keras.layers.Dense(5, dtype="float32")(x))
    accumulation = {"gradient_accumulation_steps": options["accumulation"]} if options["accumulation"] > 1 else {}
    averages = {"use_ema": True, "ema_momentum": 0.9} if options["ema"] else {}
    optimizer = training.AdamW(training.WarmupLinear(0.02, 16, 4), global_clipnorm=1.0, **accumulation, **averages)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0, dynamic_growth_steps=3)
    made.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
        jit_compile=options["jit"],
        steps_per_execution=options["steps_per_execution"],
    )
    return made


def killer(options):
    """A callback that kills the process, or what else does."""
    import keras

    kind, count = options["kill"]

    class Killer(keras.callbacks.Callback):
        seen = 0

        def count(self):
            self.seen += 1
            if self.seen == count and index() == options["worker"]:
                os.kill(os.getpid(), options["signal"])

        def on_train_batch_end(self, batch, logs=None):
            if kind == "batch":
                self.count()

        def on_epoch_end(self, epoch, logs=None):
            if kind == "epoch":
                self.count()

    made = Killer()
    if kind == "save":
        os.fsync = lambda _: made.count()  # the file is written, and has its temporary name still
    return made


def index():
    """This worker's."""
    return json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0)


def fit(options, folder, interrupted, scope, extra=()):
    """Trains; returns a dict of arrays."""
    import keras

    from tfxformer import training

    with scope():
        trained = model(options)
    callbacks = [training.Resume(folder, save_freq=options["save_freq"]), *extra]
    if interrupted and options["kill"]:
        callbacks.insert(0, killer(options))
    ids, labels = arrays(16)
    fitted = trained.fit(
        **data(options),
        epochs=options["epochs"],
        validation_data=(ids, labels),
        validation_batch_size=8,
        callbacks=callbacks,
        verbose=options["verbose"],
    )
    results = {f"history_{name}": np.asarray(value) for name, value in fitted.history.items()}
    variables = [*trained.variables, *trained.optimizer.variables]
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    return {**results, **{f"variable_{i:03d}": np.asarray(value) for i, value in enumerate(values)}}


def differences_of_two_replicas(strategy, folder):
    """For `replicas.run`: what differs between a training interrupted within an accumulation and a whole one."""
    return differences(case(accumulation=4, data="shuffled", epochs=2), folder, strategy.scope)


def differences(options, folder, scope=contextlib.nullcontext) -> list[str]:
    """What differs between a training that is interrupted after nine batches and goes on, and a whole one."""
    import keras

    class Interruption(BaseException):
        """What no fit catches."""

    class Interrupt(keras.callbacks.Callback):
        seen = 0

        def on_train_batch_end(self, batch, logs=None):
            self.seen += 1
            if self.seen == 9:
                raise Interruption

    interrupted = False
    try:
        fit(options, Path(folder) / "run", False, scope, [Interrupt()])
    except Interruption:
        interrupted = True
    if not interrupted:
        return ["it was not interrupted"]
    resumed, whole = (fit(options, Path(folder) / name, False, scope) for name in ("run", "whole"))
    return [name for name, value in whole.items() if not np.array_equal(value, resumed[name])]


def main(folder, cases, output=None):
    """Runs the cases of a file one after another."""
    sys.path.insert(0, str(Path(__file__).parent))
    from distributed_cases import scope_of

    folder, results, scopes = Path(folder), {}, {}
    for options in json.loads(Path(cases).read_text(encoding="utf-8")):
        name = options["name"]
        scope = scopes.setdefault(options["strategy"], None) or scope_of(options["strategy"])
        scopes[options["strategy"]] = scope
        if options["differ"]:
            other = {"rows": ROWS + 1, "epochs": 4} if index() else {}
            try:
                fit({**options, **other, "kill": None}, folder / name, False, scope)
            except ValueError as error:
                print(error, flush=True)
        found = {"resumed": fit(options, folder / name, True, scope)}
        if output:
            found["whole"] = fit(options, folder / f"{name}-whole", False, scope)
        results |= {f"{name}/{kind}/{key}": value for kind, run in found.items() for key, value in run.items()}
    if output and index() == 0:
        np.savez(output, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
