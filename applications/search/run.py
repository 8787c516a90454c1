"""MiniLM learns to find the text about a package by the line that says what it is; then an int8 file finds it.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/search/run.py [--quick] [--ask TEXT ...]

What was trained is kept in the output folder: a run that was ended goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import keras
import numpy as np
from ranking import COUNTED, measured, ranks, tf_idf

from tfxformer import export, samples, tasks, training
from tfxformer.data.retrieval import nearest, similarities
from tfxformer.files import write_json
from tfxformer.json_files import read_json
from tfxformer.recipes import kept_training, pipeline, report

HOME = Path(__file__).parent
FILE, PACKAGES, VECTORS = "search-int8.tflite", "packages.json", "vectors.npy"
SCORES = ("mrr", "recall@1", "recall@10")
SHOWN = 5  # lines that RESULTS.md shows


@dataclass(frozen=True)
class Settings:
    """The dials; the split is none: 2,000 sources by seed 0.

    Attributes:
        train_rows: int, of the 31,000 that there are.
        line_tokens, text_tokens: int, what is longer is cut.
        temperature: float, what cosines are divided by in training.
        learning_rate: float, a peak after a warmup of 6 %, falling to 0 on a line.
    """

    train_rows: int = 2_560
    held_out_rows: int = 2_000
    line_tokens: int = 24
    text_tokens: int = 48
    batch_size: int = 64
    epochs: int = 1
    temperature: float = 0.05
    learning_rate: float = 1e-4
    save_every: int = 20  # steps
    seed: int = 0


QUICK = replace(Settings(), train_rows=128, held_out_rows=100, save_every=1000)


def split(settings: Settings) -> tuple[list, list]:
    """(line, text, package) to learn and held-out ones: one package of each source, no text and no line twice."""
    rows, lines, texts = [], set(), set()
    for source, row in sorted({row.source: row for row in reversed(samples.debian_descriptions())}.items()):
        line, text = row.synopsis.casefold(), row.text.casefold()
        if line not in lines and text not in texts:
            rows.append((source, (row.synopsis, row.text, row.package)))
        lines.add(line)
        texts.add(text)
    chosen = [row for _, row in rows]
    random.Random(0).shuffle(chosen)
    held_out, train = chosen[:2_000], chosen[2_000:]
    return train[: settings.train_rows], held_out[: settings.held_out_rows]


def train(rows: list, folder: Path, settings: Settings, verbose) -> dict:
    """Fine-tunes MiniLM: a line's own text is the nearest of all in the batch."""
    keras.utils.set_random_seed(settings.seed)
    model = tasks.ContrastiveEmbedder.from_pretrained(
        samples.minilm(),
        temperature=settings.temperature,
        dtype="mixed_bfloat16",
        sequence_length=settings.text_tokens,
    )
    steps = -(-len(rows) // settings.batch_size) * settings.epochs
    rate = training.WarmupLinear(settings.learning_rate, steps, warmup=0.06)
    model.compile(training.AdamW(rate, 0.01, global_clipnorm=1.0))
    return kept_training.fit(
        model,
        [(line, text) for line, text, _ in rows],
        folder=folder,
        settings=settings,
        save_every=settings.save_every,
        facts={"rows": len(rows)},
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        verbose=verbose,
    )


def keras_cosines(model: tasks.TextEmbedder, lines: list[str], texts: list[str], settings: Settings) -> np.ndarray:
    """The cosines of lines and texts, [lines, texts], each cut as the file cuts them."""
    lengths = ((lines, settings.line_tokens), (texts, settings.text_tokens))
    return similarities(*(model.predict(model.encode(rows, sequence_length=size), 64) for rows, size in lengths))


def measure(folder: Path, held_out: list, settings: Settings) -> dict:
    """How each way ranks the texts for every line; the file's vectors of the texts stay in the folder."""
    lines, texts, packages = (list(column) for column in zip(*held_out, strict=True))
    before, model = (
        tasks.TextEmbedder.from_pretrained(place, dtype="mixed_bfloat16", sequence_length=settings.text_tokens)
        for place in (samples.minilm(), folder / kept_training.MODEL)
    )
    made = export.export_litert(
        tasks.TextEmbedder.from_pretrained(folder / kept_training.MODEL),
        folder / FILE,
        sequence_lengths=(settings.line_tokens, settings.text_tokens),
        samples=texts[:4],
    )
    file = export.LiteRTModel(folder / FILE)
    of_texts = []

    def by_file() -> np.ndarray:
        of_texts.append(file.predict(texts))
        return similarities(file.predict(lines), of_texts[0])

    ways = {
        **{name: lambda options=options: tf_idf(lines, texts, **options) for name, options in COUNTED.items()},
        "MiniLM as it was, Keras": lambda: keras_cosines(before, lines, texts, settings),
        "fine-tuned, Keras": lambda: keras_cosines(model, lines, texts, settings),
        "fine-tuned, LiteRT int8": by_file,
    }
    variants, found = {}, {}
    for name, way in ways.items():
        of_processor = time.process_time()
        found[name] = way()
        variants[name] = {
            **measured(ranks(found[name])),
            "processor_seconds": time.process_time() - of_processor,
        }
    variants[name] |= {"bytes": made.bytes, "relative_error": made.error}
    of_file, of_keras = (found[f"fine-tuned, {name}"] for name in ("LiteRT int8", "Keras"))
    np.save(folder / VECTORS, of_texts[0].astype("float16"))
    write_json(folder / PACKAGES, [{"package": name, "line": line} for name, line in zip(packages, lines, strict=True)])
    return {
        "variants": variants,
        "same_first": float((of_file.argmax(1) == of_keras.argmax(1)).mean()),
        "shown": [
            {"line": line, "package": name, "found": [packages[at] for at in np.argsort(-row)[:3]]}
            for line, name, row in list(zip(lines, packages, of_file, strict=True))[:SHOWN]
        ],
    }


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Trains, unless the folder holds what these settings gave, exports and measures."""
    rows, held_out = split(settings)
    trained = kept_training.kept(folder, settings) or train(rows, folder, settings, verbose)
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "data": {"learned": len(rows), "held_out": len(held_out)},
        "training": trained,
        **measure(folder, held_out, settings),
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    data, trained, machine, variants = (results[name] for name in ("data", "training", "machine", "variants"))
    rows = [
        [name, *(f"{one[score]:.3f}" for score in SCORES), report.cell(one, "bytes", ".1f", 1e-6)]
        for name, one in variants.items()
    ]
    dials, losses = trained["settings"], trained["history"]
    said = "\n".join(
        f"- {one['line']} ({one['package']})\n  - the file: {', '.join(one['found'])}" for one in results["shown"]
    )
    return f"""{report.markdown(["", "MRR", "recall@1", "recall@10", "MB"], rows)}

{data["held_out"]:,} lines, each of which looks for its own text among the {data["held_out"]:,} texts, each of another
source; {data["learned"]:,} lines and texts of other sources to learn. {trained["parameters"]:,} parameters,
{dials["text_tokens"]} tokens of a text, batches of {dials["batch_size"]}, {dials["epochs"]} epoch in
{trained["seconds"]:.0f} s ({trained["processor_seconds"]:.0f} s of the processor, which had other work too), loss
{losses["loss"][-1]:.3f} on average. The file's vectors are
{variants["fine-tuned, LiteRT int8"]["relative_error"]:.3g} from Keras' (relative), and for
{results["same_first"]:.1%} of the lines the first text is the same; Keras computed in bfloat16.
{machine["cores"]} cores of {machine["processor"]}, {results["date"]}.

The first {len(results["shown"])} lines, and what the file finds:

{said}
"""


def by_file(folder: Path, question: str, count: int = 5) -> str:
    """The nearest of the held-out packages, a line each."""
    packages, file = read_json(folder / PACKAGES, list), export.LiteRTModel(folder / FILE)
    (found,) = nearest(file.predict([question]), np.load(folder / VECTORS), count)
    return "\n".join(
        f"{one.score:6.3f}  {packages[one.index]['package']:<28}{packages[one.index]['line']}" for one in found
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few packages: to see it run, not to measure it")
    parser.add_argument("--ask", nargs="+", metavar="TEXT", help="search the held-out packages by the file")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "search")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    if not (options.ask and (folder / VECTORS).is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        results = run(folder, QUICK if options.quick else Settings(), verbose="auto")
        report.keep_results(results, section(results), folder, None if options.quick else HOME)
    for question in options.ask or ():
        print(by_file(folder, question))


if __name__ == "__main__":
    main()
