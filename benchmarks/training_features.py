"""What each feature of training costs on this CPU: a step of `fit` with it, beside the same step without.

    python benchmarks/training_features.py --rounds 8 [--model gpt]

`minilm` is a classifier of the MiniLM-L6 shape (six layers, 384 wide, vocabulary 30522; batch 32, 128 tokens, dropout
0.1, mixed bfloat16); `gpt` is nanoGPT's CPU configuration (four layers, 128 wide, batch 12, 64 tokens, float32). AdamW.
"plain" is a `training.DistributedModel` compiled with nothing else; "Keras" is a `keras.Model` of the same layers,
loss and optimizer. Each runs in a process of its own, in the loop of `fit`, with its callbacks; what is timed is one
batch in that loop: of an accumulation or an execution of several, their mean. Loss scaling is Keras'
`LossScaleOptimizer` on the same precision, since float16 itself is slow on CPUs. "cpu:2" is a MirroredStrategy of two
logical devices, each with half of the batch, which share the cores. Each model has a results file.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import queue
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np

PLAIN = "plain"
# Name -> what differs from the plain step.
FEATURES = {
    "Keras": {"base": "keras"},
    PLAIN: {},
    "jit_compile": {"jit": True},
    "accumulation of 4": {"optimizer": {"gradient_accumulation_steps": 4}, "batches": 4},
    "steps_per_execution=5": {"steps_per_execution": 5, "batches": 5},
    "global clip": {"optimizer": {"global_clipnorm": 1.0}},
    "loss scaling": {"loss_scaling": True},
    "moving average": {"optimizer": {"use_ema": True}},
    "sample weights": {"weights": True},
    "Recover": {"callback": "recover"},
    "Throughput": {"callback": "throughput"},
    "TensorBoard": {"callback": "tensorboard"},
    "gradient norms": {"callback": "norms"},
    "gradient norms, clip": {"callback": "norms", "optimizer": {"global_clipnorm": 1.0}},
    "OneDevice": {"strategy": "one"},
    "cpu:2": {"strategy": "cpu:2"},
}
TOGETHER = 5  # peers beside the plain one, 1.5 GB each
MODELS = {"minilm": (32, 128, 1), "gpt": (12, 64, 20)}  # batch, length, batches of one measurement


def callbacks(feature, folder):
    """The callbacks of a feature."""
    from tfxformer import training

    made = {
        None: lambda: [],
        "recover": lambda: [training.Recover()],
        "throughput": lambda: [training.Throughput(1e12)],
        "tensorboard": lambda: [training.TensorBoard(folder, update_freq=10)],
        "norms": lambda: [training.TensorBoard(folder, update_freq=10, gradient_norms="layers")],
    }
    return made[feature.get("callback")]()


def compiled(name, feature):
    """The model of a feature."""
    import keras

    import tfxformer
    from tfxformer import tasks, training

    if name == "minilm":
        task = tasks.TextClassifier(tfxformer.build("minilm-l6", dtype="mixed_bfloat16"), labels=["0", "1"])
    else:
        config = tfxformer.models.preset("gpt-nano").replace(vocabulary_size=80)
        task = tasks.CausalLM(tfxformer.build(config))
    base = keras.Model if feature.get("base") == "keras" else training.DistributedModel
    model = base(task.input, task.output)
    optimizer = training.AdamW(5e-5, **feature.get("optimizer", {}))
    if feature.get("loss_scaling"):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    reduction = "mean_with_sample_weight" if feature.get("weights") else "sum_over_batch_size"
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction),
        jit_compile=feature.get("jit", False),
        steps_per_execution=feature.get("steps_per_execution", 1),
    )
    return model


def data(name, model, feature):
    """One batch for ever: inputs, targets and, where the feature has them, weights."""
    import tensorflow as tf

    batch, length, _ = MODELS[name]
    random = np.random.default_rng(0)
    ids = random.integers(0, 80, (batch, length), dtype="int32")
    values = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    targets = ids if name == "gpt" else ids[:, 0] % 2
    weights = (random.uniform(0.5, 1.5, targets.shape).astype("float32"),) if feature.get("weights") else ()
    return tf.data.Dataset.from_tensors(({key: values[key] for key in model.input}, targets, *weights)).repeat()


def strategy(feature):
    """The strategy of a feature, before anything else uses TensorFlow."""
    import tensorflow as tf

    from tfxformer import training

    wanted = feature.get("strategy")
    return (
        tf.distribute.OneDeviceStrategy("cpu:0") if wanted == "one" else training.strategy(wanted) if wanted else None
    )


def in_steps(fit):
    """Runs `fit(callback)` in a thread, a batch or an execution at a time.

    Returns:
        A function that lets it do one more, and returns when all callbacks have had it.
    """
    import keras

    wanted, done = queue.Queue(), queue.Queue()

    class Gate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            wanted.get()

        def on_train_batch_end(self, batch, logs=None):
            if not np.isfinite(logs["loss"]):
                raise FloatingPointError(f"The loss became {logs['loss']}.")
            done.put(None)

    def run():
        try:
            fit(Gate())
        except Exception as error:  # the step that waits for it raises it
            done.put(error)

    threading.Thread(target=run, daemon=True).start()

    def step():
        wanted.put(None)
        error = done.get()
        if error is not None:
            raise error

    return step


@dataclass(frozen=True)
class Peer:
    """A feature on a model, ready to be sent to a process of its own."""

    model: str
    feature: str

    @property
    def __name__(self):
        return self.feature

    def __call__(self):
        feature = FEATURES[self.feature]
        scope = strategy(feature)
        with scope.scope() if scope else contextlib.nullcontext():
            model = compiled(self.model, feature)
        folder = tempfile.TemporaryDirectory()
        watching = callbacks(feature, Path(folder.name))
        fit = functools.partial(
            model.fit, data(self.model, model, feature), steps_per_epoch=10**6, shuffle=False, verbose=0
        )
        one = in_steps(lambda gate: fit(callbacks=[*watching, gate]))
        calls = batches(self.model, self.feature) // feature.get("steps_per_execution", 1)

        def step(kept=folder):  # the folder lives as long as the step
            for _ in range(calls):
                one()

        return step


def batches(model, feature) -> int:
    """How many batches one measured call trains on."""
    least, several = MODELS[model][2], FEATURES[feature].get("batches", 1)
    return -(-least // several) * several


def measure(model, features, rounds) -> dict:
    """Races the features against the plain step, a few at a time (each is a process that holds a model)."""
    others, found = [one for one in features if one != PLAIN], {}
    for begin in range(0, len(others), TOGETHER):
        group = [PLAIN, *others[begin : begin + TOGETHER]]
        times = harness.race({one: Peer(model, one) for one in group}, rounds, calls=1, warmups=2)
        for one, measured in times.items():
            times[one] = [harness.Time(*(value / batches(model, one) for value in time)) for time in measured]
        for one in group:
            if one not in found:
                found[one] = beside(times[one], times[PLAIN])
    return {one: found[one] for one in FEATURES if one in found}


def beside(times, plain) -> dict:
    """Seconds of a batch, and how many times those of the plain step in the same round."""
    ratios = [harness.Time(*(a / b for a, b in zip(*pair, strict=True))) for pair in zip(times, plain, strict=True)]
    return {
        "seconds": harness.spread([time.clock for time in times]),
        "times_plain": harness.spread([ratio.clock for ratio in ratios]),
        "times_plain_by_processor": harness.spread([ratio.processor for ratio in ratios]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="minilm", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=8, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=list(FEATURES), help="only these, and plain")
    arguments = parser.parse_args()
    batch, length, _ = MODELS[arguments.model]
    features = [one for one in FEATURES if one in {PLAIN, *arguments.features}]
    results = {
        "what": f"{arguments.model}, batch {batch}, {length} tokens",
        "command": harness.command(),
        "rounds": arguments.rounds,
        "machine": harness.machine(["tensorflow", "keras", "tensorboard"]),
        "features": measure(arguments.model, features, arguments.rounds),
    }
    print(results["machine"]["processor"])
    for name, found in results["features"].items():
        ratio, by_processor = found["times_plain"], found["times_plain_by_processor"]["median"]
        print(
            f"{name:22s} {found['seconds']['median'] * 1e3:7.1f} ms   {ratio['median']:.3f} times plain"
            f" ({ratio['low_quartile']:.3f} to {ratio['high_quartile']:.3f}), {by_processor:.3f} by processor seconds"
        )
    if features == list(FEATURES):
        print(harness.write(f"training_features-{arguments.model}", results))


if __name__ == "__main__":
    main()
