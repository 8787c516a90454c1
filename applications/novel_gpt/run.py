"""A small GPT trained from scratch on novels, pruned, quantized, exported, and writing from its .tflite file.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/novel_gpt/run.py [--quick] [--text austen|bbc|FILE] [--tokenizer characters|bpe]

The dials are those of nanoGPT's CPU configuration (github.com/karpathy/nanoGPT, config/train_shakespeare_char.py and
its README): the preset gpt-nano (4 layers, 4 heads, 128 wide), windows of 64 tokens, batch 12, 2,000 steps of AdamW
without dropout.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import keras
import numpy as np

import tfxformer
from tfxformer import compression, samples, tasks, training
from tfxformer.export import LiteRTGenerator, export_litert
from tfxformer.files import replacing_folder
from tfxformer.recipes import pipeline, plots, report
from tfxformer.text import Tokenizer

HOME = Path(__file__).parent
QUANTIZATIONS = ("float32", "dynamic_int8")


@dataclass(frozen=True)
class Settings:
    """The dials; rates are peaks after a warmup, falling along a cosine to a tenth."""

    context: int = 64
    batch_size: int = 12
    steps: int = 2000
    prune_steps: int = 500
    warmup: int = 100
    learning_rate: float = 1e-3
    prune_learning_rate: float = 5e-4
    weight_decay: float = 0.1
    sparsity: float = 0.5
    vocabulary_size: int = 1024  # of a learned one
    scored_characters: int = 2000  # of the held-out text, by each .tflite file, one token at a time
    written_characters: int = 600
    seed: int = 0


QUICK = replace(Settings(), steps=200, prune_steps=60, warmup=20, scored_characters=200, written_characters=200)


@dataclass(frozen=True)
class Text:
    """What is learned, and what is held out to measure it by."""

    name: str
    train: str
    held_out: str


def read_text(name: str) -> Text:
    """The novels, news out of a registry package, or a file of the user's own.

    Raises:
        ValueError: for a file that is not plain text or too short.
    """
    if name == "austen":
        *train, (_, held_out) = sorted(samples.austen_novels().items(), key=lambda novel: novel[0] == "Persuasion")
        return Text("five novels of Jane Austen, held out Persuasion", "\n".join(t for _, t in train), held_out)
    if name == "bbc":
        news = samples.bbc_topics()
        return Text("BBC news", "\n\n".join(news.train_texts), "\n\n".join(news.test_texts))
    try:
        text = Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not plain text in UTF-8: {error}.") from error
    if len(text) < 10_000:
        raise ValueError(f"{name} has {len(text)} characters; a model from scratch wants 10,000 at least.")
    border = int(0.9 * len(text))
    return Text(Path(name).name, text[:border], text[border:])


def make_model(text: Text, kind: str, settings: Settings) -> tasks.CausalLM:
    """A small GPT-2 with random weights."""
    keras.utils.set_random_seed(settings.seed)
    if kind == "characters":
        tokenizer = Tokenizer.characters(text.train + text.held_out)
    else:
        tokenizer = Tokenizer.train_byte_level_bpe([text.train], settings.vocabulary_size)
    backbone = tfxformer.build("gpt-nano", vocabulary_size=tokenizer.vocabulary_size, padding_id=tokenizer.padding_id)
    return tasks.CausalLM(backbone, tokenizer=tokenizer, sequence_length=settings.context)


def fit(model, ids, held_out, settings: Settings, steps: int, rate: float, seed: int, verbose, callbacks=()) -> dict:
    """Trains on windows that begin anywhere; the history, with the held-out loss ten times on the way."""
    parts = min(10, steps)
    schedule = training.WarmupCosine(rate, steps, warmup=min(settings.warmup, steps // 10), floor=rate / 10)
    optimizer = training.AdamW(schedule, settings.weight_decay, beta_2=0.99, global_clipnorm=1.0)
    model.compile(optimizer, steps_per_execution=max(1, steps // parts // 10))
    inputs, targets = model.windows(ids, settings.batch_size * steps, seed=seed)
    history = model.fit(
        inputs,
        targets,
        batch_size=settings.batch_size,
        epochs=parts,
        steps_per_epoch=steps // parts,
        shuffle=False,
        validation_data=model.windows(held_out, 240, seed=0),
        callbacks=list(callbacks),
        verbose=verbose,
    )
    return pipeline.numbers(history)


def nats_per_character(model, ids, characters: int) -> float:
    """The mean negative log-likelihood of a text: its tokens' in windows of the model's context, over characters."""
    loss = model.evaluate(ids, batch_size=64, return_dict=True, verbose=0)["loss"]
    return loss * (len(ids) - 1) / characters


def windows(text: str, count: int, length: int) -> list[str]:
    """`count` pieces of a text, evenly spread over it, of `length` characters."""
    return [text[begin : begin + length] for begin in np.linspace(0, len(text) - length, count).astype(int)]


def write(generator: LiteRTGenerator, prompt: str, characters: int, context: int, seed: int) -> str:
    """A prompt continued by a file whose cache holds `context` tokens: again and again from what it wrote last."""
    text = prompt
    while len(text) < characters:
        tail = text[-context // 2 :]
        text += generator.generate(tail, max_new_tokens=context // 2, temperature=0.8, seed=seed + len(text))
    return text[:characters]


def measure_file(model, path: Path, quantization: str, pieces: list[str], settings: Settings) -> dict:
    """Exports the model and scores the file on pieces of the held-out text, token by token as it would write."""
    made = export_litert(
        model, path, quantization, cache_length=settings.context, prefill_lengths=(settings.context // 2,)
    )
    start = time.perf_counter()
    scores = LiteRTGenerator(path).score(pieces)
    seconds = time.perf_counter() - start
    return {
        "file": path.name,
        "bytes": made.bytes,
        "zipped_bytes": made.zipped_bytes,
        "nats_per_token": -float(np.mean(scores)),
        "milliseconds_per_token": 1e3 * seconds / sum(map(len, model.tokenizer.ids(pieces))),
    }


def run(text: Text, kind: str, settings: Settings, folder: Path, verbose) -> dict:
    """Trains, prunes, exports, measures and writes; everything goes into `folder`."""
    start = time.perf_counter()
    model = make_model(text, kind, settings)
    ids, held_out = (np.asarray(model.tokenizer.ids([part])[0], np.int32) for part in (text.train, text.held_out))
    characters = len(text.held_out) - 1
    print(f"{text.name}: {len(ids):,} tokens to learn, {len(held_out):,} held out, {model.count_params():,} parameters")
    history, variants = {}, {}
    begin = time.perf_counter()
    history["train"] = fit(model, ids, held_out, settings, settings.steps, settings.learning_rate, 1, verbose)
    training_seconds = time.perf_counter() - begin
    variants["keras"] = {"nats_per_character": nats_per_character(model, held_out, characters)}
    schedule = pipeline.pruning_schedule(settings.sparsity, settings.prune_steps)
    history["prune"] = fit(
        model, ids, held_out, settings, settings.prune_steps, settings.prune_learning_rate, 2, verbose,
        [compression.Prune(schedule)],
    )  # fmt: skip
    variants["keras-pruned"] = {
        "nats_per_character": nats_per_character(model, held_out, characters),
        "sparsity": compression.sparsity_report(model).kernels.sparsity,
    }
    model.save_pretrained(folder)
    pieces = windows(text.held_out, settings.scored_characters // settings.context, settings.context)
    variants["keras-pruned"]["nats_per_token"] = -float(np.mean(model.score(pieces)))
    for quantization in QUANTIZATIONS:
        path = folder / f"novel-gpt-{quantization.removeprefix('dynamic_')}.tflite"
        variants[f"litert-{quantization}"] = measure_file(model, path, quantization, pieces, settings)
    written = write(LiteRTGenerator(path), text.held_out[: settings.context // 2], settings.written_characters,
                    settings.context, settings.seed)  # fmt: skip
    return {
        "text": text.name,
        "tokenizer": kind,
        "date": date.today().isoformat(),
        "seconds": time.perf_counter() - start,
        "training_seconds": training_seconds,
        "parameters": model.count_params(),
        "settings": asdict(settings),
        "machine": pipeline.machine(),
        "variants": variants,
        "written": written,
        "history": history,
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    variants, settings = results["variants"], results["settings"]
    header = ["model", "nats a character, all held-out text", "nats a token, scored pieces", "size kB", "zip kB"]
    rows = [
        [
            report.VARIANT_NAMES[name],
            report.cell(one, "nats_per_character", ".4f"),
            report.cell(one, "nats_per_token", ".4f"),
            report.cell(one, "bytes", ".0f", 1e-3),
            report.cell(one, "zipped_bytes", ".0f", 1e-3),
        ]
        for name, one in variants.items()
    ]
    quoted = "\n".join(f"> {line}" for line in results["written"].splitlines())
    machine = results["machine"]
    return f"""{report.markdown(header, rows)}

{results["text"]}; {results["tokenizer"]}; {results["parameters"]:,} parameters; {settings["steps"]:,} steps
({results["training_seconds"]:.0f} s with the held-out loss ten times), then {settings["prune_steps"]} while
{settings["sparsity"]:.0%} of the kernels' weights became zero. The whole run took {results["seconds"]:.0f} s on
{machine["cores"]} cores of {machine["processor"]}, on {results["date"]}.

What the int8 file writes, from the first {settings["context"] // 2} characters on:

{quoted}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps: to see it run, not to measure it")
    parser.add_argument(
        "--text", default=None, help="austen, bbc, or a plain text file (default: austen if apt is there)"
    )
    parser.add_argument("--tokenizer", choices=("characters", "bpe"), default="characters")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "novel-gpt")
    options = parser.parse_args()
    name = options.text or ("austen" if shutil.which("apt-get") else "bbc")
    settings = QUICK if options.quick else Settings()
    with replacing_folder(options.output) as folder:
        results = run(read_text(name), options.tokenizer, settings, folder, 1 if sys.stdout.isatty() else 2)
        report.write_json(folder / "results.json", results)
        plots.training_curve(results["history"], folder / "training-curve.png")
    print(section(results))
    if not options.quick and options.text is None and options.tokenizer == "characters":
        report.update_section(HOME / "RESULTS.md", section(results))


if __name__ == "__main__":
    main()
