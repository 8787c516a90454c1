"""What preparing records costs over tokenizing alone, and whether reading them keeps up with training, on this CPU.

    python benchmarks/records.py

The text is Jane Austen's six novels, 4 MB, a paragraph a document, the tokenizer MiniLM's WordPiece (30,522 tokens);
groups of 1 MiB and rows of 128 tokens, as `data.prepare_records` has them by default. "Rust, tokens alone" calls the
tokenizer on the documents of such groups and takes nothing out of the result. "in the graph" is `Tokenizer.in_graph`,
which cuts and pads as well. A second race has the rows of the masked set (a paragraph a row, longer ones more) read
shuffled in batches of 32, and a training step of the smallest preset, bert-tiny with a classifier: once on a batch in
memory, once on what is read. Both share the cores here; on an accelerator, reading has them for itself.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

import harness
import numpy as np

from tfxformer.data.records import sources

LENGTH, BATCH, SHARDS, BATCHES, STEPS = 128, 32, 8, 200, 5
TOKENS_ALONE = "Rust, tokens alone"


def corpus() -> str:
    """The text of one file."""
    from tfxformer import samples

    return "\n\n".join(samples.austen_novels().values())


def paragraphs() -> list[str]:
    """The documents."""
    content = corpus().encode()
    spans = sources.plan([("corpus", len(content))], "paragraph", len(content))[0]
    return sources.read_group(spans, "paragraph", "text", lambda file: io.BytesIO(content))


def tokenizer():
    """MiniLM's."""
    from tfxformer import samples
    from tfxformer.text import Tokenizer

    return Tokenizer.from_pretrained(samples.minilm())


def rust_peer():
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(tokenizer().tokenizer_json())
    backend.no_truncation()
    backend.no_padding()
    groups = list(sources.iterable_groups(paragraphs(), "text"))

    def step():
        for group in groups:
            backend.encode_batch_fast(group)

    return step


def rust_ids_peer():
    own, groups = tokenizer(), list(sources.iterable_groups(paragraphs(), "text"))

    def step():
        for group in groups:
            own.ids(group)

    return step


def settings(kind: str) -> dict:
    """Of all sets here."""
    return {"sequence_length": LENGTH, "kind": kind, "shards": SHARDS}


def preparing_peer(kind="causal"):
    from tfxformer.data import prepare_records

    folder = Path(tempfile.mkdtemp())
    file, own = folder / "corpus.txt", tokenizer()
    file.write_text(corpus(), encoding="utf-8")

    def step():
        prepare_records(
            file, folder / "set", own, sequence_length=LENGTH, kind=kind, documents="paragraph", shards=SHARDS
        )
        shutil.rmtree(folder / "set")

    return step


def masked_peer():
    return preparing_peer("masked")


def graph_peer():
    import tensorflow as tf

    graph = tokenizer().in_graph(LENGTH)
    data = tf.data.Dataset.from_tensor_slices(paragraphs()).batch(2048).map(graph, tf.data.AUTOTUNE)

    def step():
        for _ in data:
            pass

    return step


PREPARING = {
    TOKENS_ALONE: rust_peer,
    "Rust, with ids as lists": rust_ids_peer,
    "prepare_records, causal": preparing_peer,
    "prepare_records, masked": masked_peer,
    "in the graph": graph_peer,
}


def reading(shuffled: int | None = 0):
    """Batches without an end that matters, of a set that was just written."""
    from tfxformer.data import prepare_records

    folder = Path(tempfile.mkdtemp()) / "set"
    records = prepare_records(paragraphs(), folder, tokenizer(), **settings("masked"))
    return records.dataset(BATCH, seed=shuffled, epochs=2000)


def reading_peer(shuffled: int | None = 0):
    data = iter(reading(shuffled))

    def step():
        for _ in range(BATCHES):
            next(data)

    return step


def training_peer(read=False):
    import keras
    import tensorflow as tf

    import tfxformer
    from tfxformer import tasks, training

    model = tasks.TextClassifier(tfxformer.build("bert-tiny"), labels=["no", "yes"])
    optimizer = training.adamw(10**6, 1e-4, warmup=0, weight_decay=0.01, global_clipnorm=1.0)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[])
    labels = np.arange(BATCH, dtype=np.int32) % 2
    data = reading()
    if not read:
        data = tf.data.Dataset.from_tensors(next(iter(data))).repeat()
    batches = iter(data.map(lambda batch: (batch, labels)).prefetch(2))
    model.make_train_function()

    def step():
        for _ in range(STEPS):
            loss = float(np.asarray(model.train_function(batches)["loss"]))
        if not np.isfinite(loss):
            raise FloatingPointError(f"The loss became {loss}.")

    return step


def training_on_records_peer():
    return training_peer(read=True)


READING = {
    "reading, shuffled": (reading_peer, BATCHES),
    "training step, batch in memory": (training_peer, STEPS),
    "training step, from records": (training_on_records_peer, STEPS),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="interleaved rounds (default: %(default)s)")
    arguments = parser.parse_args()

    size = len(corpus().encode()) / 1e6
    results = {
        "what": f"{size:.1f} MB of English, MiniLM's WordPiece, rows of {LENGTH} tokens, batch {BATCH}",
        "command": harness.command(),
        "rounds": arguments.rounds,
        "machine": harness.machine(["tensorflow", "tensorflow-text", "keras", "tokenizers", "numpy"]),
    }
    raced = harness.race(PREPARING, arguments.rounds, warmups=1)
    results["preparing"] = {
        name: {
            **one,
            "megabytes_per_second": harness.spread([size / time.clock for time in raced[name]]),
            "megabytes_per_processor_second": harness.spread([size / time.processor for time in raced[name]]),
        }
        for name, one in harness.summary(raced, TOKENS_ALONE).items()
    }
    raced = harness.race({name: peer for name, (peer, _) in READING.items()}, arguments.rounds)
    batches = {
        name: [harness.Time(*(seconds / READING[name][1] for seconds in time)) for time in times]
        for name, times in raced.items()
    }
    results["reading"] = {
        name: {
            **one,
            "rows_per_second": harness.spread([BATCH / time.clock for time in batches[name]]),
            "rows_per_processor_second": harness.spread([BATCH / time.processor for time in batches[name]]),
        }
        for name, one in harness.summary(batches, "training step, batch in memory").items()
    }
    show(results)
    print(harness.write("records", results))


def show(results: dict) -> None:
    """Prints both races."""
    print(results["machine"]["processor"])
    for name, one in results["preparing"].items():
        print(
            f"{name:32s} {one['megabytes_per_second']['median']:6.2f} MB/s "
            f"{one['ours_is_faster']['median']:6.3f}x the time of the tokens alone "
            f"({one['ours_is_faster_by_processor']['median']:.3f}x by processor seconds)"
        )
    for name, one in results["reading"].items():
        print(
            f"{name:32s} {one['rows_per_second']['median']:9,.0f} rows/s, "
            f"{one['rows_per_processor_second']['median']:9,.0f} by processor seconds, "
            f"{one['ours_is_faster']['median']:6.3f}x the time of a step on memory"
        )


if __name__ == "__main__":
    main()
