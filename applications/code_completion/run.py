"""A small GPT that completes Python: it learns from the standard library of the Python that runs it.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/code_completion/run.py [--quick]; then complete.py FILE LINE
"""

from __future__ import annotations

import argparse
import lzma
import math
import platform
import time
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import keras
import numpy as np
from corpus import LONGEST, Half, halves, joined, modules, split
from ngram import KneserNey

import tfxformer
from tfxformer import export, tasks, training
from tfxformer.recipes import pipeline, report
from tfxformer.text import Tokenizer

HOME = Path(__file__).parent
MODEL, FILE = "code.keras", "code-int8.tflite"
SHOWN = 8


@dataclass(frozen=True)
class Settings:
    """The dials.

    Attributes:
        modules: int or None, how many are read, in the order of their names; None for all.
        share: float, of the modules that are held out.
        context: int, tokens that the model sees.
        learning_rate: float, a peak after the warmup, falling along a cosine to a tenth.
        lines: int, held-out lines that are completed.
        order: int, tokens of the longest n-grams.
    """

    modules: int | None = None
    share: float = 0.1
    vocabulary_size: int = 2048
    context: int = 128
    layers: int = 4
    width: int = 192
    heads: int = 4
    feed_forward: int = 512  # gated: three kernels
    batch_size: int = 16
    steps: int = 1000
    warmup: int = 100
    learning_rate: float = 2e-3
    lines: int = 300
    order: int = 5
    seed: int = 0


QUICK = replace(Settings(), modules=24, share=0.2, vocabulary_size=512, width=64, feed_forward=128, steps=30,
                warmup=5, lines=10)  # fmt: skip


def make_model(tokenizer: Tokenizer, settings: Settings) -> tasks.CausalLM:
    """A decoder with rotary positions and random weights."""
    keras.utils.set_random_seed(settings.seed)
    backbone = tfxformer.build(
        "smollm2-135m",
        vocabulary_size=tokenizer.vocabulary_size,
        padding_id=tokenizer.padding_id,
        initializer_range=0.04,  # wider than SmolLM2's, for a model that is narrower
        decoder__num_layers=settings.layers,
        decoder__hidden_size=settings.width,
        decoder__attention__heads=settings.heads,
        decoder__attention__key_value_heads=settings.heads,
        decoder__feed_forward__size=settings.feed_forward,
        decoder__max_positions=settings.context,
    )
    return tasks.CausalLM(backbone, tokenizer=tokenizer, sequence_length=settings.context)


def train(model: tasks.CausalLM, ids: np.ndarray, settings: Settings, verbose) -> dict:
    """On windows that begin anywhere; what it took."""
    rate = training.WarmupCosine(
        settings.learning_rate, settings.steps, warmup=settings.warmup, floor=settings.learning_rate / 10
    )
    parts = min(10, settings.steps)
    model.compile(training.AdamW(rate, 0.1, beta_2=0.98, global_clipnorm=1.0))
    start, of_processor = time.perf_counter(), time.process_time()
    inputs, targets = model.windows(ids, settings.batch_size * settings.steps, seed=settings.seed)
    history = model.fit(
        inputs,
        targets,
        batch_size=settings.batch_size,
        epochs=parts,
        steps_per_epoch=settings.steps // parts,
        shuffle=False,
        verbose=verbose,
    )
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - of_processor,
        "history": pipeline.numbers(history),
    }


def compressed_bits(learned: list[str], held_out: list[str]) -> float:
    """Bits a byte that xz takes for held-out texts behind those to learn, which its window holds all of."""
    sizes = []
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 64 << 20}]
    before, after = (("\n".join(texts)).encode() for texts in (learned, held_out))
    for content in (before, before + after):
        sizes.append(len(lzma.compress(content, filters=filters)))
    return 8 * (sizes[1] - sizes[0]) / len(after)


def line_ends(tokenizer: Tokenizer) -> set[int]:
    """The ids of tokens with a line break, and of the end token."""
    texts = tokenizer.decode([[index] for index in range(tokenizer.vocabulary_size)], skip_special_tokens=False)
    return {index for index, text in enumerate(texts) if "\n" in text} | {tokenizer.eos_id}


def exact(answers: list[str], lines: list[Half]) -> float:
    """The share of lines whose rest was written letter by letter; spaces at their end do not count."""
    return float(np.mean([answer.rstrip() == line.rest.rstrip() for answer, line in zip(answers, lines, strict=True)]))


def measure(model, folder: Path, learned: list[str], held_out: list[str], ids: np.ndarray, settings: Settings) -> dict:
    """Bits a byte of the held-out modules, and how many of their lines each way completes."""
    tokenizer, context = model.tokenizer, settings.context
    held_ids, size = joined(held_out, tokenizer), sum(len(text.encode()) for text in held_out)
    to_bits = (len(held_ids) - 1) / math.log(2) / size
    lines = halves(held_out, tokenizer, settings.lines, settings.seed, context - LONGEST)
    counted = KneserNey(ids, tokenizer.vocabulary_size, settings.order)
    made = export.export_litert(model, folder / FILE, cache_length=context, prefill_lengths=(16, context // 2))
    file, prompts = export.LiteRTGenerator(folder / FILE), [line.ids for line in lines]
    answers = {
        "n-gram": tokenizer.decode(counted.complete(prompts, line_ends(tokenizer), LONGEST)),
        "Keras": model.generate(prompts, LONGEST, stop="\n"),
        "file": [file.generate(prompt, LONGEST, stop="\n") for prompt in prompts],
    }
    loss = model.evaluate(held_ids, batch_size=32, stride=context // 2, return_dict=True, verbose=0)["loss"]
    return {
        "variants": {
            "xz": {"bits_per_byte": compressed_bits(learned, held_out)},
            f"Kneser-Ney, {settings.order}-grams": {
                "bits_per_byte": counted.nats(held_ids) * to_bits,
                "exact": exact(answers["n-gram"], lines),
            },
            "GPT, Keras": {"bits_per_byte": loss * to_bits, "exact": exact(answers["Keras"], lines)},
            "GPT, the int8 file": {"exact": exact(answers["file"], lines), "bytes": made.bytes},
        },
        "held_out": {"bytes": size, "tokens": len(held_ids), "lines": len(lines)},
        "same_completions": float(np.mean([a == b for a, b in zip(answers["Keras"], answers["file"], strict=True)])),
        "relative_error": made.error,
        "shown": [
            {
                "before": tokenizer.decode([line.ids])[0].rpartition("\n")[2],
                "rest": line.rest,
                **{name: answers[name][index] for name in ("n-gram", "file")},
            }
            for index, line in enumerate(lines[:SHOWN])
        ],
    }


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Learns a vocabulary and a model, exports and measures."""
    found = modules()
    found = {name: found[name] for name in list(found)[: settings.modules]}
    learned, held_out, names = split(found, settings.share, settings.seed)
    tokenizer = Tokenizer.train_byte_level_bpe(learned, settings.vocabulary_size)
    ids = joined(learned, tokenizer)
    model = make_model(tokenizer, settings)
    trained = train(model, ids, settings, verbose)
    pipeline.save_keras(model, folder / MODEL)
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "settings": asdict(settings),
        "python": platform.python_version(),
        "learned": {
            "modules": len(found) - len(names),
            "bytes": sum(len(text.encode()) for text in learned),
            "tokens": len(ids),
        },
        "modules_held_out": names,
        "parameters": model.count_params(),
        "training": trained,
        **measure(model, folder, learned, held_out, ids, settings),
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    learned, held, dials, machine, trained, variants = (
        results[name] for name in ("learned", "held_out", "settings", "machine", "training", "variants")
    )
    rows = [
        [
            name,
            report.cell(one, "bits_per_byte", ".3f"),
            report.cell(one, "exact", ".1%"),
            report.cell(one, "bytes", ".1f", 1e-6),
        ]
        for name, one in variants.items()
    ]
    losses = trained["history"]["loss"]
    said = "\n\n".join(
        f"```text\n{one['before'].strip()}⟨{one['rest']}⟩\n```\nn-gram: `{one['n-gram'] or ' '}`, "
        f"file: `{one['file'] or ' '}`"
        for one in results["shown"]
    )
    return f"""{report.markdown(["", "bits a byte", "rest of the line, exactly", "MB"], rows)}

Python {results["python"]}'s standard library without tests and tables: {learned["modules"]} modules to learn
({learned["bytes"] / 1e6:.1f} MB, {learned["tokens"]:,} tokens), {len(results["modules_held_out"])} held out
({held["bytes"] / 1e6:.1f} MB, {held["tokens"]:,} tokens), seed {dials["seed"]}:
{", ".join(results["modules_held_out"])}. {held["lines"]} of their lines broke off after half of their tokens; the rest
is right if every letter is. xz counts what the held-out modules add to a compressed file of those to learn.

The GPT has {results["parameters"]:,} parameters, {dials["layers"]} layers, {dials["width"]} wide, sees
{dials["context"]} tokens and read {dials["steps"] * dials["batch_size"] * dials["context"]:,} in
{dials["steps"]:,} steps: {trained["processor_seconds"]:.0f} s of the processor ({trained["seconds"]:.0f} s on a machine
with other work), loss {losses[0]:.2f} to {losses[-1]:.2f}. The file completes {results["same_completions"]:.1%} of the
lines as Keras does; its logits are {results["relative_error"]:.3g} from Keras' (relative). {machine["cores"]} cores of
{machine["processor"]}, {results["date"]}.

The first lines; what was to be guessed stands in ⟨⟩:

{said}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few modules: to see it run, not to measure it")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "code-completion")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    folder.mkdir(parents=True, exist_ok=True)
    results = run(folder, QUICK if options.quick else Settings(), verbose=2)
    report.keep_results(results, section(results), folder, None if options.quick else HOME)


if __name__ == "__main__":
    main()
