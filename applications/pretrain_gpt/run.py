"""A small GPT pretrained by two workers that share every batch, one of which is killed on the way.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/pretrain_gpt/run.py [--quick]

Novels become records once. Two processes, as two machines would, train on them under MultiWorkerMirroredStrategy; one
is killed with SIGKILL in the middle, both are started again, and go on from the last checkpoint. Then one process
trains on the same batches alone: the losses are the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

HOME = Path(__file__).parent
RESULT = "result.json"


@dataclass(frozen=True)
class Settings:
    """The dials; `batch_size` is the global one, and the rate a peak after a warmup, falling to a tenth."""

    model: str = "gpt-nano"
    vocabulary_size: int = 2048
    sequence_length: int = 64
    batch_size: int = 32
    epochs: int = 1
    learning_rate: float = 2e-3
    warmup: int = 50
    save_every: int = 50  # steps
    kill_after: int = 120  # steps of the second worker
    novels: int = 3


QUICK = replace(Settings(), vocabulary_size=512, epochs=1, save_every=5, kill_after=12, warmup=5, novels=1)


def prepare(folder: Path, settings: Settings) -> dict:
    """Records of the novels but one, and their tokenizer; what came out."""
    from tfxformer import data, samples
    from tfxformer.text import Tokenizer

    novels = [text for title, text in samples.austen_novels().items() if title != "Persuasion"][-settings.novels :]
    start = time.perf_counter()
    tokenizer = Tokenizer.train_byte_level_bpe(novels, settings.vocabulary_size)
    tokenizer.save_pretrained(folder / "tokenizer")
    records = data.prepare_records(
        novels, folder / "records", tokenizer, sequence_length=settings.sequence_length, kind="causal", shards=8
    )
    return {
        "seconds": time.perf_counter() - start,
        "characters": sum(map(len, novels)),
        "rows": records.count,
        "steps": records.count // settings.batch_size * settings.epochs,
    }


def dies_at(step: int):
    """A callback that kills this very process after a step: a machine that goes away."""
    import keras

    class DiesAt(keras.callbacks.Callback):
        seen = 0

        def on_train_batch_end(self, batch, logs=None):
            self.seen += 1
            if self.seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    return DiesAt()


def work(folder: Path, name: str, settings: Settings, kill: int | None) -> None:
    """What every worker runs: builds the model, trains from where the checkpoints are, and the chief tells the end."""
    import contextlib

    import keras
    import numpy as np

    import tfxformer
    from tfxformer import data, samples, tasks, training
    from tfxformer.text import Tokenizer

    cluster = "TF_CONFIG" in os.environ
    scope = training.strategy("multiworker").scope() if cluster else contextlib.nullcontext()
    tokenizer = Tokenizer.from_pretrained(folder / "tokenizer")
    records = data.Records(folder / "records", tokenizer=tokenizer)
    steps = records.count // settings.batch_size

    with scope:
        keras.utils.set_random_seed(0)
        backbone = tfxformer.build(settings.model, vocabulary_size=tokenizer.vocabulary_size, padding_id=0)
        model = tasks.CausalLM(backbone, tokenizer=tokenizer, sequence_length=settings.sequence_length)
        rate = training.WarmupCosine(
            settings.learning_rate, steps * settings.epochs, warmup=settings.warmup, floor=settings.learning_rate / 10
        )
        model.compile(training.AdamW(rate, 0.1, global_clipnorm=1.0))
    resume = training.Resume(folder / f"checkpoints-{name}", save_freq=settings.save_every)
    start = time.perf_counter()
    history = model.fit(
        model.epochs(records, settings.batch_size),
        epochs=settings.epochs,
        callbacks=[resume, *([dies_at(kill)] if kill else [])],
        verbose=2,
    )
    seconds = time.perf_counter() - start
    if cluster and json.loads(os.environ["TF_CONFIG"])["task"]["index"] > 0:
        return
    if cluster:  # the weights are the same on all; one device is enough to measure them
        alone = tasks.CausalLM(tfxformer.build(backbone.config), tokenizer=tokenizer)
        alone.set_weights(model.get_weights())
        model = alone
    model.sequence_length = settings.sequence_length
    model.save_pretrained(folder / name)
    held_out = np.array(tokenizer.ids([samples.austen_novels()["Persuasion"]])[0], np.int32)
    result = {
        "losses": [float(value) for value in history.history["loss"]],
        "held_out_nats_per_token": model.evaluate(held_out, batch_size=64, verbose=0, return_dict=True)["loss"],
        "seconds_since_start": seconds,
        "resumed_from": resume.resumed_from and resume.resumed_from.name,
        "parameters": model.count_params(),
    }
    (folder / f"{name}-{RESULT}").write_text(json.dumps(result), encoding="utf-8")


def start(folder: Path, name: str, settings: Settings, workers: int, kill: int | None = None) -> list[int]:
    """Runs the workers, each in a process of its own; their exit codes. The last one dies at the step `kill`."""
    command = [
        sys.executable,
        __file__,
        "--work",
        str(folder),
        "--name",
        name,
        "--settings",
        json.dumps(asdict(settings)),
    ]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    processes = []
    for index in range(workers):
        environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
        if workers > 1:
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment["TF_CONFIG"] = json.dumps(task)
        dying = ["--kill", str(kill)] if kill and index == workers - 1 else []
        output = None if index == 0 else subprocess.DEVNULL
        processes.append(subprocess.Popen([*command, *dying], env=environment, stdout=output))
    return [process.wait() for process in processes]


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def run(folder: Path, settings: Settings) -> dict:
    """Prepares, trains with two workers through the loss of one, and once more alone."""
    begin = time.perf_counter()
    prepared = prepare(folder, settings)
    print(f"{prepared['rows']:,} rows, {prepared['steps']:,} steps; the second worker dies after {settings.kill_after}")
    times = [time.perf_counter()]
    codes = start(folder, "two-workers", settings, 2, settings.kill_after)
    times.append(time.perf_counter())
    if codes[1] != -signal.SIGKILL or codes[0] == 0:
        raise RuntimeError(f"The second worker was to be killed and the first to notice; they ended with {codes}.")
    again = start(folder, "two-workers", settings, 2)
    times.append(time.perf_counter())
    alone = start(folder, "one-worker", settings, 1)
    times.append(time.perf_counter())
    if any((*again, *alone)):
        raise RuntimeError(f"Training ended with {again} and {alone}; see above.")
    results = {name: json.loads((folder / f"{name}-{RESULT}").read_text()) for name in ("two-workers", "one-worker")}
    seconds = dict(
        zip(
            ("until_killed", "two_workers_again", "one_worker"),
            (later - earlier for earlier, later in itertools.pairwise(times)),
            strict=True,
        )
    )
    return {
        **{name.replace("-", "_"): result for name, result in results.items()},
        "exit_code_of_the_survivor": codes[0],
        "weights_differ_by": weight_difference(folder),
        "prepared": prepared,
        "seconds": {**seconds, "all": time.perf_counter() - begin},
        "settings": asdict(settings),
        "date": date.today().isoformat(),
    }


def weight_difference(folder: Path) -> float:
    """The largest difference of any weight of the two models."""
    import numpy as np

    from tfxformer.checkpoints.files.safetensors import open_folder

    one, other = (open_folder(folder / name) for name in ("two-workers", "one-worker"))
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def section(results: dict) -> str:
    """The results as Markdown."""
    from tfxformer.recipes import report

    rows = [
        [
            label,
            " ".join(f"{loss:.4f}" for loss in results[name]["losses"]),
            f"{results[name]['held_out_nats_per_token']:.4f}",
            f"{results['seconds'][clock]:.0f}",
        ]
        for label, name, clock in (
            ("two workers, one killed and both restarted", "two_workers", "two_workers_again"),
            ("one process", "one_worker", "one_worker"),
        )
    ]
    prepared, settings, seconds = results["prepared"], results["settings"], results["seconds"]
    table = report.markdown(["", "loss by epoch", "held-out nats a token", "s"], rows)
    return f"""{table}

{prepared["characters"]:,} characters became {prepared["rows"]:,} rows of {settings["sequence_length"]} tokens in
{prepared["seconds"]:.1f} s, vocabulary and all; {results["two_workers"]["parameters"]:,} parameters,
{prepared["steps"]:,} steps of {settings["batch_size"]} rows, each shared by the two workers. The second worker was
killed (SIGKILL) after {settings["kill_after"]} steps, {seconds["until_killed"]:.0f} s after the start; the first ended
with exit code {results["exit_code_of_the_survivor"]}, and both went on from
`{results["two_workers"]["resumed_from"]}`. The largest difference of any weight between the two models is
{results["weights_differ_by"]:.1e}.

Two processes on one machine of {results["machine"]["cores"]} cores share them: they show that it works, not that it is
faster.
{results["machine"]["processor"]}, {results["date"]}.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps: to see it run, not to measure it")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "pretrain-gpt")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # what a worker is started with
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    parser.add_argument("--kill", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.name, Settings(**json.loads(options.settings)), options.kill)
        return
    from tfxformer.files import replacing_folder
    from tfxformer.recipes import pipeline, report

    settings = QUICK if options.quick else Settings()
    with replacing_folder(options.output) as folder:
        results = {**run(folder, settings), "machine": pipeline.machine()}
        report.write_json(folder / "results.json", results)
    print(section(results))
    if not options.quick:
        report.update_section(HOME / "RESULTS.md", section(results))


if __name__ == "__main__":
    main()
