"""What it costs when one size grows: length, batch, layers, vocabulary, new tokens, texts.

    python benchmarks/growth.py

For each road (encode, train, generate, export, records) one size is multiplied by four at a time, the others stay. The
power by which the processor's seconds grow from a size to the next is log(seconds' ratio) / log(4): 1 where four times
the size costs four times as much. It may not exceed what the arithmetic asks for, `Growth.most`, by more than
`TOLERANCE`: attention over whole texts is square in their length, all else is linear. Seconds are those of the
processor, over all threads, the least of several calls: other work on the machine disturbs them little.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np

TOLERANCE = 0.15
FACTOR = 4
CALLS = 3  # of which the fastest counts, unless one takes longer than LONG
LONG = 10.0
SIZES = {"length": 64, "batch": 8, "layers": 2, "vocabulary": 8192, "tokens": 32, "texts": 4000}
WIDTH, HEADS = 384, 6
PACKAGES = ["tensorflow", "keras", "ai-edge-litert"]


def stack(sizes: dict, name: str) -> dict:
    """The dials of a stack of these sizes."""
    return {
        f"{name}__num_layers": sizes["layers"],
        f"{name}__hidden_size": WIDTH,
        f"{name}__attention__heads": HEADS,
        f"{name}__feed_forward__size": 4 * WIDTH,
        f"{name}__max_positions": max(sizes["length"] + sizes["tokens"], 128),
        "vocabulary_size": sizes["vocabulary"],
    }


def encoder(sizes: dict):
    """A MiniLM of these sizes."""
    import tfxformer

    return tfxformer.build("minilm-l6", **stack(sizes, "encoder"))


def classifier(sizes: dict):
    """A MiniLM of these sizes with two labels."""
    from tfxformer import tasks

    return tasks.TextClassifier(encoder(sizes), ["no", "yes"])


def batch(sizes: dict, model) -> dict:
    """Random ids without padding."""
    shape = (sizes["batch"], sizes["length"])
    ids = np.random.default_rng(0).integers(0, sizes["vocabulary"], shape).astype("int32")
    other = {"padding_mask": np.ones(shape, "int32"), "segment_ids": np.zeros(shape, "int32")}
    return {tensor.name: other.get(tensor.name, ids) for tensor in model.inputs}


def encode(sizes: dict) -> Callable:
    import tensorflow as tf

    from tfxformer import tasks

    model = tasks.TextEmbedder(encoder(sizes))  # each layer computes all tokens; a classifier's last one only the first
    inputs = batch(sizes, model)
    call = tf.function(lambda given: model(given, training=False))
    return lambda: call(inputs).numpy()


def train(sizes: dict) -> Callable:
    model = classifier(sizes)
    model.compile("adamw")
    inputs, labels = batch(sizes, model), np.arange(sizes["batch"]) % 2
    return lambda: model.train_on_batch(inputs, labels)


def generate(sizes: dict) -> Callable:
    import tfxformer
    from tfxformer import generation, tasks

    model = tasks.CausalLM(
        tfxformer.build("smollm2-135m", **stack(sizes, "decoder"), decoder__attention__key_value_heads=2)
    )
    prompts = np.random.default_rng(0).integers(0, sizes["vocabulary"], (sizes["batch"], sizes["length"])).tolist()

    def step():
        found = generation.generate(model, prompts, sizes["tokens"], jit_compile=False)
        if {len(ids) for ids in found} != {sizes["tokens"]}:
            raise AssertionError("Another number of tokens than asked for.")

    return step


def export(sizes: dict) -> Callable:
    from tfxformer import export as exporting

    model, folder = classifier(sizes), Path(tempfile.mkdtemp())

    def step():
        exporting.export_litert(model, folder / "model.tflite", "dynamic_int8", sequence_length=sizes["length"])
        shutil.rmtree(folder)

    return step


def records(sizes: dict) -> Callable:
    from tfxformer import samples
    from tfxformer.data import prepare_records
    from tfxformer.text import Tokenizer

    tokenizer, folder = Tokenizer.from_pretrained(samples.minilm()), Path(tempfile.mkdtemp())
    some = samples.bbc_topics().train_texts[:500]
    texts = [some[index % len(some)][:600] for index in range(sizes["texts"])]

    def step():
        prepare_records(texts, folder / "set", tokenizer, sequence_length=sizes["length"], kind="causal", shards=4)
        shutil.rmtree(folder / "set")

    return step


@dataclass(frozen=True)
class Growth:
    """One road and one size.

    Attributes:
        road: a function of this module, from sizes to a step.
        size: which one grows, from `least` to `largest`.
        most: the power that its arithmetic asks for at the largest sizes.
        others: sizes other than `SIZES`.
    """

    road: Callable
    size: str
    least: int
    largest: int
    most: float = 1.0
    others: tuple = ()

    def values(self) -> list[int]:
        """The sizes, each four times the one before."""
        steps = round(math.log(self.largest / self.least, FACTOR))
        return [self.least * FACTOR**step for step in range(steps + 1)]


GROWTHS = (
    Growth(encode, "length", 16, 4096, 2.0, (("batch", 1),)),
    Growth(encode, "batch", 1, 64),
    Growth(encode, "layers", 1, 16),
    Growth(encode, "vocabulary", 2048, 131072),
    Growth(train, "length", 16, 4096, 2.0, (("batch", 1),)),
    Growth(train, "batch", 1, 64),
    Growth(train, "layers", 1, 16),
    Growth(train, "vocabulary", 2048, 131072),
    Growth(generate, "length", 16, 1024, 2.0, (("batch", 1),)),
    Growth(generate, "tokens", 16, 256, 2.0, (("batch", 1), ("length", 16))),
    Growth(generate, "batch", 1, 16),
    Growth(generate, "layers", 1, 16, others=(("batch", 1),)),
    Growth(generate, "vocabulary", 2048, 131072, others=(("batch", 1),)),
    Growth(export, "layers", 1, 16),
    Growth(export, "vocabulary", 2048, 131072),
    Growth(export, "length", 16, 1024, 2.0),
    Growth(records, "texts", 1000, 16000),
    Growth(records, "length", 16, 1024),
)


def measured(growth: Growth) -> list[float]:
    """Seconds of the processor at each size; the first call, which traces, is not counted but where nothing traces."""
    found = []
    for value in growth.values():
        step = growth.road({**SIZES, **dict(growth.others), growth.size: value})
        if growth.road is not export:
            step()
        seconds = []
        while len(seconds) < CALLS and sum(seconds) < LONG:
            began = time.process_time()
            step()
            seconds.append(time.process_time() - began)
        found.append(min(seconds))
        print(f"  {growth.size} {value}: {found[-1]:.4f} s", file=sys.stderr, flush=True)
    return found


def powers(seconds: list[float]) -> list[float]:
    """The power of each step from a size to the next."""
    return [math.log(after / before, FACTOR) for before, after in itertools.pairwise(seconds)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    roads = sorted({growth.road.__name__ for growth in GROWTHS})
    parser.add_argument("--roads", nargs="+", choices=roads, default=roads)
    options = parser.parse_args()
    machine, table = harness.machine(PACKAGES), []
    for growth in GROWTHS:
        if growth.road.__name__ not in options.roads:
            continue
        print(f"{growth.road.__name__} over {growth.size}", file=sys.stderr, flush=True)
        seconds = measured(growth)
        found = powers(seconds)
        row = {"road": growth.road.__name__, "size": growth.size, "values": growth.values(), "seconds": seconds}
        row |= {"powers": found, "most": growth.most, "holds": found[-1] <= growth.most + TOLERANCE}
        table.append(row)
        print(f"{row['road']:9s} {row['size']:11s} power {found[-1]:.2f} of {growth.most:.0f} {row['holds']}")
    results = {"command": harness.command(), "machine": machine, "sizes": SIZES, "tolerance": TOLERANCE, "table": table}
    print(harness.write("growth", results))


if __name__ == "__main__":
    main()
