"""Names in tweets: MiniLM tags persons, places, companies and seven more kinds, and becomes an int8 file.

Expected: see RESULTS.md beside, which the full run writes; what was tried for it is in RESULTS-tried.md, by tried.py.
Command: python applications/entities/run.py [--quick] [--text TEXT ...]
"""

from __future__ import annotations

import argparse
import json
import string
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import keras
import numpy as np
from baselines import WAYS
from tokenizers import Regex, normalizers

from tfxformer import data, export, samples, tasks
from tfxformer.data.targets.words.labels import entities, entity_scores
from tfxformer.recipes import pipeline, report
from tfxformer.text import Tokenizer

HOME = Path(__file__).parent
MODEL, FILE = "entities.keras", "entities-int8.tflite"
MARK = "^"  # the token before a word with a capital
BOOTSTRAPS = 2000
SHOWN = 8


@dataclass(frozen=True)
class Settings:
    """The dials.

    Attributes:
        sequence_length: int, tokens of a tweet.
        marks: bool, whether capitals are told to the model, whose vocabulary has none.
        learning_rate: float, the head's, a peak after a warmup of a tenth, falling to 0 on a line.
        layer_decay: float, the rate of a layer over that of the one above.
        outside: float, the weight of words that are in no name.
        seeds: tuple, a training each, from the same head; the model is the mean of their weights.
        tweets: int or None, how many are learned from; None for all.
    """

    sequence_length: int = 48
    marks: bool = True
    epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 5e-4
    layer_decay: float = 0.8
    outside: float = 1.0
    seeds: tuple[int, ...] = (1,)
    tweets: int | None = None


QUICK = replace(Settings(), epochs=1, seeds=(1,), tweets=120)


# ---- reading -------------------------------------------------------------------------------------------------------


def with_marks(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that says so where a word begins with a capital, before it lowercases; addresses are "http"."""
    content = json.loads(tokenizer.to_json())
    parts = content["tokenizer"]
    # A step for each letter: what is found cannot be repeated in its replacement.
    steps = [normalizers.Replace(Regex(r"https?://\S+"), "http")]
    steps += [
        normalizers.Replace(Regex(rf"(?<![\p{{L}}\p{{N}}]){letter}"), f"{MARK} {letter}")
        for letter in string.ascii_uppercase
    ]
    before = [json.loads(step.__getstate__()) for step in steps]
    parts["normalizer"] = {"type": "Sequence", "normalizers": [*before, parts["normalizer"]]}
    return Tokenizer.from_json(json.dumps(content))


def fresh(labels: list[str], settings: Settings) -> tasks.TokenClassifier:
    """MiniLM with a new head, the same one each time."""
    keras.utils.set_random_seed(0)
    options = {"sequence_length": settings.sequence_length}
    loaded = tasks.TokenClassifier.from_pretrained(samples.minilm(), labels=labels, **options)
    if not settings.marks:
        return loaded
    keras.utils.set_random_seed(0)
    return tasks.TokenClassifier(loaded.backbone, labels, tokenizer=with_marks(loaded.tokenizer), **options)


# ---- training ------------------------------------------------------------------------------------------------------


def trained(texts: list, tags: list, labels: list[str], settings: Settings, verbose) -> tasks.TokenClassifier:
    """The mean of the models that the seeds give."""
    found = []
    for seed in settings.seeds:
        tagger = fresh(labels, settings)
        keras.utils.set_random_seed(seed)
        tagger.compile(learning_rate=settings.learning_rate, layer_decay=settings.layer_decay)
        weights = {"O": settings.outside} if settings.outside != 1.0 else None
        dials = {"epochs": settings.epochs, "batch_size": settings.batch_size}
        tagger.fit(texts, tags, class_weight=weights, verbose=verbose, **dials)
        found.append(tagger.get_weights())
    tagger.set_weights([np.mean(parts, axis=0).astype(parts[0].dtype) for parts in zip(*found, strict=True)])
    return tagger


# ---- measuring -----------------------------------------------------------------------------------------------------


def counts(wanted: list[list[str]], found: list[list[str]]) -> np.ndarray:
    """Of each tweet: names that were found rightly, names found, names there are: int [B, 3]."""
    rows = [(set(entities(tags)), set(entities(guesses))) for tags, guesses in zip(wanted, found, strict=True)]
    return np.array([[len(true & guessed), len(guessed), len(true)] for true, guessed in rows])


def f1(totals: np.ndarray) -> np.ndarray:
    """F1 of sums of `counts`: [..., 3]."""
    return 2 * totals[..., 0] / np.maximum(1, totals[..., 1] + totals[..., 2])


def bootstraps(of_tweets: np.ndarray) -> np.ndarray:
    """F1 of tweets drawn again with replacement, always the same draws: float [BOOTSTRAPS]."""
    generator = np.random.default_rng(0)
    size = len(of_tweets)
    return np.array([f1(of_tweets[generator.integers(0, size, size)].sum(0)) for _ in range(BOOTSTRAPS)])


def interval(values: np.ndarray) -> list[float]:
    """The middle 95 %."""
    return [float(value) for value in np.quantile(values, (0.025, 0.975))]


def measured(wanted: list[list[str]], found: list[list[str]]) -> dict:
    scores = entity_scores(wanted, found)
    return {
        **{name: scores[name] for name in ("f1", "precision", "recall")},
        "interval": interval(bootstraps(counts(wanted, found))),
        "by_type": {kind: one["f1"] for kind, one in scores["by_type"].items()},
    }


def timed(work) -> tuple:
    """What work returns, and its seconds of the processor."""
    begun = time.process_time()
    return work(), time.process_time() - begun


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Trains, exports, and measures all on the same tweets."""
    split = samples.tweet_entities()
    texts, tags = split.train_texts[: settings.tweets], split.train_labels[: settings.tweets]
    found, variants = {}, {}
    for name, way in WAYS.items():
        found[name], seconds = timed(lambda way=way: way(texts, tags, split.test_texts))
        variants[name] = {**measured(split.test_labels, found[name]), "processor_seconds": seconds}
        print(name, f"{variants[name]['f1']:.3f}", flush=True)
    tagger, seconds = timed(lambda: trained(texts, tags, split.labels, settings, verbose))
    pipeline.save_keras(tagger, folder / MODEL)
    opened = keras.saving.load_model(folder / MODEL)
    found["MiniLM"] = opened.predict(split.test_texts, 32, verbose=0)
    variants["MiniLM"] = {**measured(split.test_labels, found["MiniLM"]), "processor_seconds": seconds}
    made = export.export_litert(
        opened, folder / FILE, sequence_length=settings.sequence_length, samples=split.train_texts[:4]
    )
    file = export.LiteRTModel(folder / FILE)
    found["file"] = file.predict(split.test_texts)
    same = [one == other for one, other in zip(found["MiniLM"], found["file"], strict=True)]
    words = [one == other for pair in zip(found["MiniLM"], found["file"], strict=True)
             for one, other in zip(*pair, strict=True)]  # fmt: skip
    variants["MiniLM, the int8 file"] = {**measured(split.test_labels, found["file"]), "bytes": made.bytes}
    gains = {
        name: interval(bootstraps(counts(split.test_labels, found["MiniLM"])) - bootstraps(of_tweets))
        for name, of_tweets in ((name, counts(split.test_labels, found[name])) for name in WAYS)
    }
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "settings": asdict(settings),
        "data": {
            "learned": len(texts),
            "test": len(split.test_texts),
            "types": dict(Counter(kind for row in split.test_labels for kind, *_ in entities(row))),
        },
        "variants": variants,
        "gains": gains,
        "same_tags": float(np.mean(words)),
        "same_tweets": float(np.mean(same)),
        "relative_error": made.error,
        "parameters": tagger.count_params(),
        "shown": shown(file, split.test_texts, split.test_labels),
    }


def shown(file: export.LiteRTModel, texts: list[list[str]], tags: list[list[str]]) -> list[dict]:
    """The first tweets with names: what the file marks, and what people marked."""
    rows = [index for index, row in enumerate(tags) if set(row) != {"O"}][:SHOWN]
    found = file.entities([texts[index] for index in rows])
    return [
        {
            "text": " ".join(texts[index]),
            "file": [f"{one.text} ({one.label})" for one in names],
            "wanted": [f"{' '.join(texts[index][first:end])} ({kind})" for kind, first, end in entities(tags[index])],
        }
        for index, names in zip(rows, found, strict=True)
    ]


def section(results: dict) -> str:
    """The results as Markdown."""
    variants, dials, machine, rows = (results[name] for name in ("variants", "settings", "machine", "data"))
    table = [
        [
            name,
            f"{one['f1']:.3f}",
            f"{one['interval'][0]:.3f} to {one['interval'][1]:.3f}",
            *(f"{one[score]:.3f}" for score in ("precision", "recall")),
            report.cell(one, "processor_seconds", ".0f"),
            report.cell(one, "bytes", ".1f", 1e-6),
        ]
        for name, one in variants.items()
    ]
    columns = ["", "entity F1", "95 % interval", "precision", "recall", "s of the processor", "MB"]
    kinds = sorted(rows["types"].items(), key=lambda item: -item[1])
    compared = ("windowed logistic regression", "conditional random field", "MiniLM")
    by_kind = [[kind, str(count), *(f"{variants[name]['by_type'].get(kind, 0.0):.2f}" for name in compared)]
               for kind, count in kinds]  # fmt: skip
    gains = "; ".join(f"{low:+.3f} to {high:+.3f} over {name}" for name, (low, high) in results["gains"].items())
    said = "\n".join(
        f"- {one['text']}\n  - the file: {', '.join(one['file']) or 'none'}\n  - people: {', '.join(one['wanted'])}"
        for one in results["shown"]
    )
    capitals = "capitals told by a mark" if dials["marks"] else "capitals not told"
    return f"""{report.markdown(columns, table)}

{rows["learned"]:,} tweets to learn and {rows["test"]} to test, seed 0; {sum(rows["types"].values())} names in the test.
Intervals are bootstraps of the tweets ({BOOTSTRAPS:,} draws); of the differences to MiniLM's F1: {gains}.
The file gives {results["same_tags"]:.2%} of the words, and all words of {results["same_tweets"]:.1%} of the tweets, the
tag that Keras gives; its logits are {results["relative_error"]:.3g} from Keras' (relative).

{report.markdown(["F1 of a kind", "in the test", *compared], by_kind)}

MiniLM-L6 has {results["parameters"]:,} parameters and reads {dials["sequence_length"]} tokens, {capitals};
{dials["epochs"]} epochs in batches of {dials["batch_size"]}, peak learning rate {dials["learning_rate"]:g},
{dials["layer_decay"]:g} of it a layer further down, words in no name weighing {dials["outside"]:g}; the mean of the
weights of {len(dials["seeds"])} trainings. {machine["cores"]} cores of {machine["processor"]}, {results["date"]}.

The first test tweets with names:

{said}
"""


def by_file(folder: Path, text: str) -> str:
    """A text with its names marked, by the file."""
    (found,) = export.LiteRTModel(folder / FILE).entities([text])
    return data.highlight(text, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few tweets: to see it run, not to measure it")
    parser.add_argument("--text", nargs="+", help="mark the names of these by the file, once it is there")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "entities")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    if not (options.text and (folder / FILE).is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        results = run(folder, QUICK if options.quick else Settings(), verbose=2)
        report.keep_results(results, section(results), folder, None if options.quick else HOME)
    for text in options.text or ():
        print(by_file(folder, text))


if __name__ == "__main__":
    main()
