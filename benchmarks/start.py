"""How long a user waits before the first result, each in a process of its own that has imported nothing yet.

    python benchmarks/start.py --rounds 5

"a file answers" is `python` until `LiteRTModel` has classified one text with MiniLM in int8; "the first step of fit"
begins with the model in memory and ends with its first batch of 32 texts; "export" writes MiniLM in int8 and verifies
it; "load" fills BERT-base from a safetensors file in the page cache, TensorFlow already imported; "demo" is the whole
of `tfxformer demo --quick`, its download done before. Modules are compiled, as pip leaves them, whatever the shell's
PYTHONDONTWRITEBYTECODE says. Seconds by the clock and by the processor, medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness

GOALS = {"a file answers": 0.3, "the first step of fit": 5.0, "export": 10.0, "load": 0.3, "demo": 60.0}
PACKAGES = ["tensorflow", "keras", "ai-edge-litert", "tokenizers", "numpy"]
TEXT = "What a film!"
# The head is untrained, its logits are small: their error says nothing, and is over the default on some draws.
EXPORTED = {"quantization": "dynamic_int8", "sequence_length": 128, "tolerance": 0.5}


def answering(folder: str) -> None:
    """A light install's first answer."""
    from tfxformer.runtime import LiteRTModel

    LiteRTModel(Path(folder, "minilm.tflite")).predict([TEXT])


def minilm():
    """A classifier on MiniLM."""
    from tfxformer import samples, tasks

    return tasks.TextClassifier.from_pretrained(samples.minilm(), labels=["no", "yes"])


def fitting(folder: str) -> float:
    """Seconds from `fit` to the end of its first batch."""
    import keras

    class First(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            ended.append(time.perf_counter())

    model, ended = minilm(), []
    began = time.perf_counter()
    model.fit(
        [f"{TEXT} {index}" for index in range(64)], ["no", "yes"] * 32, batch_size=32, callbacks=[First()], verbose=0
    )
    return ended[0] - began


def exporting(folder: str) -> float:
    """Seconds of one export."""
    from tfxformer import export

    model, began = minilm(), time.perf_counter()
    export.export_litert(model, Path(folder, "exported.tflite"), **EXPORTED)
    return time.perf_counter() - began


def loading(folder: str) -> float:
    """Seconds of filling BERT-base."""
    import keras

    import tfxformer

    keras.ops.zeros(1)  # TensorFlow starts its runtime with the first operator
    began = time.perf_counter()
    tfxformer.from_pretrained(Path(folder, "bert"))
    return time.perf_counter() - began


def showing(folder: str) -> None:
    """The quick demo, as a user runs it."""
    output = Path(tempfile.mkdtemp(dir=folder))
    subprocess.run(["tfxformer", "demo", "--quick", "--output", str(output)], check=True, stdout=subprocess.DEVNULL)


PARTS = {
    "a file answers": answering,
    "the first step of fit": fitting,
    "export": exporting,
    "load": loading,
    "demo": showing,
}


def prepare(folder: str, parts: list[str]) -> None:
    """The files that the parts open."""
    import tfxformer
    from tfxformer import export
    from tfxformer.checkpoints.pretrained import save_pretrained

    if "a file answers" in parts:
        export.export_litert(minilm(), Path(folder, "minilm.tflite"), **EXPORTED)
    if "load" in parts:
        bert = tfxformer.build("bert-base")
        save_pretrained(Path(folder, "bert"), bert, bert.config)


def once(part: str, folder: str) -> dict:
    """One process: what it says it took, or all of it."""
    command = [sys.executable, __file__, "--part", part, "--folder", folder]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, a part of a cold start would be Python's compiler
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    said = json.loads(done.stdout.splitlines()[-1])
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": clock if said is None else said, "process_seconds": clock, "processor_seconds": processor}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](options.folder)))
        return
    machine, found = harness.machine(PACKAGES), {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder, options.parts)
        for _ in range(options.rounds):
            for part in options.parts:
                found.setdefault(part, []).append(once(part, folder))
    table = {
        part: {name: statistics.median(one[name] for one in times) for name in times[0]} | {"goal": GOALS[part]}
        for part, times in found.items()
    }
    for part, row in table.items():
        print(
            f"{part:22s} {row['seconds']:.2f} s of {row['goal']} s wanted; processor {row['processor_seconds']:.2f} s"
        )
    print(
        harness.write(
            "start", {"command": harness.command(), "machine": machine, "rounds": options.rounds, "table": table}
        )
    )


if __name__ == "__main__":
    main()
