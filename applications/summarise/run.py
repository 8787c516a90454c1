"""Flan-T5-small learns to say in a line what a Debian package is, from the long text about it; then an int8 file does.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/summarise/run.py [--quick]

What was trained and measured is kept in the output folder: a run that was ended goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import keras
from rich.progress import track

from tfxformer import export, samples, tasks, training
from tfxformer.data.text_scores import text_scores
from tfxformer.recipes import kept_training, pipeline, report

HOME = Path(__file__).parent
FILE = "summarise-int8.tflite"
SCORES = ("rouge1", "rouge2", "rougeL", "chrf")
SHOWN = 6  # packages that RESULTS.md shows
WORDS = 10  # of the baselines: what scored best of 6, 8, 10 and 12
VERB = re.compile(r"\b(?:is an?|is the|provides|contains|implements)\s+(?:an?\s|the\s)?", re.IGNORECASE)


@dataclass(frozen=True)
class Settings:
    """The dials; the split is none: 1,000 sources by seed 0.

    Attributes:
        train_rows: int, of the 32,000 that there are.
        source_tokens, target_tokens: int, what is longer is cut in training.
        learning_rate: float, the highest, falling to 0 on a line.
    """

    train_rows: int = 12_000
    held_out_rows: int = 1_000
    compared_rows: int = 200  # written by Keras and by the file, token by token
    source_tokens: int = 64
    target_tokens: int = 24
    batch_size: int = 16
    epochs: int = 1
    learning_rate: float = 6e-4
    save_every: int = 150  # steps
    seed: int = 0


QUICK = replace(Settings(), train_rows=96, held_out_rows=32, compared_rows=8, save_every=1000)


def split(settings: Settings) -> tuple[list, list]:
    """(text, synopsis) to train on and held-out ones: one package of each source, and no text twice."""
    rows = {}
    for row in samples.debian_descriptions():
        rows.setdefault(row.source, (row.text, row.synopsis))
    unique = {text: (text, synopsis) for _, (text, synopsis) in sorted(rows.items(), reverse=True)}
    pairs = sorted(unique.values())
    random.Random(0).shuffle(pairs)
    held_out, train = pairs[:1_000], pairs[1_000:]
    return train[: settings.train_rows], held_out[: settings.held_out_rows]


def baselines(held_out: list) -> dict:
    """The scores of what takes no learning: by what it is."""
    written = {
        "first sentence": [first_sentence(text) for text, _ in held_out],
        f"first {WORDS} words": [first_words(text) for text, _ in held_out],
        f'{WORDS} words behind "is a", "provides" and the like': [behind_verb(text) for text, _ in held_out],
    }
    return {name: scores(texts, held_out) for name, texts in written.items()}


def first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]


def first_words(text: str) -> str:
    return " ".join(text.split()[:WORDS])


def behind_verb(text: str) -> str:
    """What follows the first verb that says what a thing is, up to the end of the sentence or a bracket."""
    found = VERB.search(text)
    rest = text[found.end() :] if found else text
    return first_words(re.split(r"[.;:(]\s|\.$|\(", rest, maxsplit=1)[0])


def scores(written: list[str], held_out: list) -> dict:
    """As people write them: from 0 to 100."""
    found = text_scores(written, [synopsis for _, synopsis in held_out], SCORES)
    return {name: value if name == "chrf" else 100 * value for name, value in found.items()}


def train(pairs: list, folder: Path, settings: Settings, verbose) -> dict:
    """Fine-tunes the checkpoint, keeps the model in `folder`, and beside it how long it took."""
    keras.utils.set_random_seed(settings.seed)
    model = tasks.Seq2SeqLM.from_pretrained(
        samples.flan_t5_small(),
        dtype="mixed_bfloat16",
        sequence_length=settings.source_tokens,
        target_length=settings.target_tokens,
    )
    steps = -(-len(pairs) // settings.batch_size) * settings.epochs
    rate = training.WarmupLinear(settings.learning_rate, steps, warmup=0.06)
    model.compile(training.AdamW(rate, 0.01, global_clipnorm=1.0))
    return kept_training.fit(
        model,
        *map(list, zip(*pairs, strict=True)),
        folder=folder,
        settings=settings,
        save_every=settings.save_every,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        verbose=verbose,
    )


def cut(tokenizer, held_out: list, length: int) -> list[list[int]]:
    """The ids of the texts, cut to what was learned, for Keras and the file alike."""
    encoding = tokenizer.encode([text for text, _ in held_out], sequence_length=length)
    return [ids[mask > 0].tolist() for ids, mask in zip(encoding.token_ids, encoding.padding_mask, strict=True)]


def measure(folder: Path, held_out: list, settings: Settings) -> dict:
    """The scores of what the model wrote, before and after, in Keras' float32 and in an int8 file."""
    most = settings.target_tokens
    before = tasks.Seq2SeqLM.from_pretrained(samples.flan_t5_small())
    sources = cut(before.tokenizer, held_out, settings.source_tokens)
    compared = sources[: settings.compared_rows]
    few = held_out[: settings.compared_rows]
    variants = {f"{name}": one for name, one in baselines(held_out).items()}
    variants["before"] = {**scores(write(before, compared, most), few), "rows": len(few)}
    del before

    model = tasks.Seq2SeqLM.from_pretrained(folder / kept_training.MODEL)
    start = time.perf_counter()
    written = write(model, sources, most)
    variants["keras"] = {**scores(written, held_out), "seconds": time.perf_counter() - start}

    made = export.export_litert(
        model,
        folder / FILE,
        sequence_length=settings.source_tokens,
        cache_length=most,
        samples=[text for text, _ in few[:SHOWN]],
    )
    generator = export.LiteRTGenerator(folder / FILE)
    start = time.perf_counter()
    by_file = [generator.generate(ids, most) for ids in track(sources, "The file writes")]
    variants["litert-dynamic_int8"] = {
        **scores(by_file, held_out),
        "seconds": time.perf_counter() - start,
        "bytes": made.bytes,
        "relative_error": made.error,
        "agreement": agreement(model.tokenizer, written[: len(few)], by_file[: len(few)]),
    }
    shown = [
        {"text": text, "wanted": wanted, "file": short}
        for (text, wanted), short in list(zip(held_out, by_file, strict=True))[:SHOWN]
    ]
    return {"variants": variants, "shown": shown}


def write(model, sources: list[list[int]], most: int) -> list[str]:
    """Greedily."""
    return model.generate(sources, most, batch_size=50, verbose="auto")


def agreement(tokenizer, written: list[str], by_file: list[str]) -> dict:
    """How much of what Keras wrote the file wrote too: whole texts, and tokens up to the first difference."""
    rows = [tokenizer.ids(texts, special_tokens=False) for texts in (written, by_file)]
    same = tokens = 0
    for one, other in zip(*rows, strict=True):
        differ = [index for index, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]]
        same += differ[0] if differ else min(len(one), len(other))
        tokens += max(len(one), len(other))
    texts = sum(one == other for one, other in zip(written, by_file, strict=True)) / len(written)
    return {"texts": texts, "tokens_before_a_difference": same / tokens, "of": len(written)}


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Trains, unless the folder holds what these settings gave, exports and measures."""
    pairs, held_out = split(settings)
    trained = kept_training.kept(folder, settings) or train(pairs, folder, settings, verbose)
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "data": {"learned": len(pairs), "held_out": len(held_out)},
        "training": trained,
        **measure(folder, held_out, settings),
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    trained, variants, machine = results["training"], results["variants"], results["machine"]
    dials, data, file = trained["settings"], results["data"], variants["litert-dynamic_int8"]
    labels = {
        "before": f"the checkpoint as it was, of {variants['before']['rows']} texts",
        "keras": "Keras, fine-tuned",
        "litert-dynamic_int8": "LiteRT int8",
    }
    rows = [
        [labels.get(name, name), *(f"{one[score]:.1f}" for score in SCORES), report.cell(one, "bytes", ".1f", 1e-6)]
        for name, one in variants.items()
    ]
    agreed = file["agreement"]
    said = "\n".join(
        f"- {' '.join(one['text'].split()[:40])} ...\n  - wanted: {one['wanted']}\n  - the file: {one['file']}"
        for one in results["shown"]
    )
    return f"""{report.markdown(["", "ROUGE-1", "ROUGE-2", "ROUGE-L", "chrF", "MB"], rows)}

ROUGE is rouge-score's, with stems, chrF sacrebleu's, from 0 to 100; {data["held_out"]:,} packages held out by seed 0,
{data["learned"]:,} of the others to learn, each of another source. {trained["parameters"]:,} parameters,
{dials["source_tokens"]} tokens of a text, {dials["target_tokens"]} of a line, {dials["epochs"]} epoch in batches of
{dials["batch_size"]} in {trained["seconds"]:.0f} s, while other programs ran beside. The file's logits are
{file["relative_error"]:.3g} from Keras' (relative); of {agreed["of"]} texts it writes {agreed["texts"]:.1%} as Keras
does, token for token, and {agreed["tokens_before_a_difference"]:.1%} of all tokens stand before the first difference.
It wrote {data["held_out"]:,} lines in {file["seconds"]:.0f} s, one at a time. {machine["cores"]} cores of
{machine["processor"]}, {results["date"]}.

The first {len(results["shown"])} held-out packages:

{said}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few packages: to see it run, not to measure it")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "summarise")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    folder.mkdir(parents=True, exist_ok=True)
    results = run(folder, QUICK if options.quick else Settings(), verbose="auto")
    report.keep_results(results, section(results), folder, None if options.quick else HOME)


if __name__ == "__main__":
    main()
