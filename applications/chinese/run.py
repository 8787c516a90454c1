"""A small Chinese BERT: pretrained on news and reviews, it learns words and names, and what reviews think.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/chinese/run.py [--quick] [--text TEXT ...]

Characters are the tokens. What was trained is kept in the output folder: a run that was ended goes on from its last
checkpoint.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import baselines
import keras
import numpy as np
from page import drawn, section
from words import LABELS, by_days, f1, labels_of, scores, text_of, words_and_names

import tfxformer
from tfxformer import export, samples, tasks
from tfxformer.figures import save_figure
from tfxformer.recipes import kept_training, pipeline, report
from tfxformer.text import Tokenizer

HOME = Path(__file__).parent
TAGGER, JUDGE = "words-int8.tflite", "reviews-int8.tflite"
STARTS = ("random", "pretrained")
SHOWN = 6  # sentences of the examples
MASKED = ("中 国 人 民 [MASK] 行 行 长", "新 华 社 北 [MASK] １ 月 ３ 日 电", "房间很[MASK]净，服务也不错。")


@dataclass(frozen=True)
class Pretraining:
    """The dials of the BERT and of its pretraining; the rate is a peak after a warmup of a tenth.

    Attributes:
        length: int, tokens of a row, [CLS] and [SEP] among them.
        paragraphs, reviews: int or None, how many of each are read; None for all but those held out.
    """

    layers: int = 3
    width: int = 128
    heads: int = 4
    feed_forward: int = 320  # gated: three kernels
    length: int = 64
    vocabulary_size: int = 6400
    masking_rate: float = 0.2
    batch_size: int = 32
    epochs: int = 4
    learning_rate: float = 1.5e-3
    paragraphs: int | None = None
    reviews: int | None = None
    save_every: int = 250  # steps
    seed: int = 0


@dataclass(frozen=True)
class Tuning:
    """The dials of learning from labels, of `count` paragraphs or reviews; None for all that are not held out."""

    count: int | None
    test_count: int | None
    length: int
    epochs: int
    learning_rate: float
    dropout: float = 0.1
    batch_size: int = 32
    save_every: int = 250  # steps
    seed: int = 0


@dataclass(frozen=True)
class Settings:
    pretraining: Pretraining = field(default_factory=Pretraining)
    words: Tuning = Tuning(count=1500, test_count=None, length=64, epochs=10, learning_rate=1e-3)
    reviews: Tuning = Tuning(count=4000, test_count=None, length=96, epochs=4, learning_rate=5e-4)


@dataclass(frozen=True)
class Tuned:
    """All that a model with labels hangs on."""

    start: str
    pretraining: Pretraining
    tuning: Tuning


QUICK = Settings(
    Pretraining(layers=1, epochs=1, paragraphs=150, reviews=100),
    Tuning(count=60, test_count=20, length=64, epochs=2, learning_rate=2e-3),
    Tuning(count=160, test_count=60, length=64, epochs=2, learning_rate=1e-3),
)


# ---- data ----------------------------------------------------------------------------------------------------------


def chosen(items: list, count: int | None) -> list:
    """`count` of them by seed 0, in their order."""
    if count is None or count >= len(items):
        return items
    return [items[index] for index in sorted(random.Random(0).sample(range(len(items)), count))]


def pieces(text: str, size: int) -> list[str]:
    """A text in pieces of so many characters."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def news(dials: Pretraining, tuning: Tuning) -> tuple[list, list]:
    """Parts of paragraphs with words and tags: those that are learned with labels, and those of the last days."""
    before, last_days = by_days(dials.length - 2)
    learned, test = chosen(before, tuning.count), chosen(last_days, tuning.test_count)
    return [part for parts in learned for part in parts], [part for parts in test for part in parts]


def unlabelled(dials: Pretraining) -> list[str]:
    """Full rows to pretrain on: the news but for the last days, and the reviews but for those of the test.

    The news are spaced: so the tagger reads characters, as words, those of Latin letters and digits too.
    """
    size = dials.length - 2
    before, _ = by_days(size)
    text = "".join(text_of(part) for parts in chosen(before, dials.paragraphs) for part in parts)
    reviews = " ".join(chosen(samples.chinese_reviews().train_texts, dials.reviews))
    return [*(" ".join(piece) for piece in pieces(text, size)), *pieces(reviews, size)]


# ---- training ------------------------------------------------------------------------------------------------------


def pretrain(folder: Path, dials: Pretraining, verbose) -> dict:
    """A BERT with random weights learns to fill hidden characters."""
    keras.utils.set_random_seed(dials.seed)
    rows = unlabelled(dials)
    tokenizer = Tokenizer.train_word_piece(rows, dials.vocabulary_size)
    backbone = tfxformer.build(
        "nomic-bert-base",  # BERT with rotary positions: no position has to be learned by itself
        vocabulary_size=tokenizer.vocabulary_size,
        initializer_range=0.05,  # wider than BERT's, for a model that is narrower
        encoder__num_layers=dials.layers,
        encoder__hidden_size=dials.width,
        encoder__attention__heads=dials.heads,
        encoder__feed_forward__size=dials.feed_forward,
    )
    model = tasks.MaskedLM(backbone, tokenizer=tokenizer, sequence_length=dials.length, masking_rate=dials.masking_rate)
    model.compile(learning_rate=dials.learning_rate)
    return kept_training.fit(
        model,
        rows,
        folder=folder,
        settings=dials,
        save_every=dials.save_every,
        facts={"rows": len(rows), "characters": sum(len(row.replace(" ", "")) for row in rows)},
        batch_size=dials.batch_size,
        epochs=dials.epochs,
        verbose=verbose,
    )


def tune(task, data: tuple, labels: list, folder: Path, pretrained: Path, tuned: Tuned, verbose) -> dict:
    """A task learns from labels, on the pretrained BERT or on one with random weights."""
    dials = tuned.tuning
    keras.utils.set_random_seed(dials.seed)
    read = task.from_pretrained(pretrained, labels=labels)
    backbone = tfxformer.build(
        read.backbone.config, encoder__dropout=dials.dropout, heads__classifier_dropout=dials.dropout
    )
    if tuned.start == "pretrained":
        backbone.set_weights(read.backbone.get_weights())
    model = task(backbone, labels=labels, tokenizer=read.tokenizer, sequence_length=dials.length)
    model.compile(learning_rate=dials.learning_rate)
    return kept_training.fit(
        model,
        *data,
        folder=folder,
        settings=tuned,
        save_every=dials.save_every,
        facts={"examples": len(data[0])},
        batch_size=dials.batch_size,
        epochs=dials.epochs,
        verbose=verbose,
    )


def all_trained(folder: Path, settings: Settings, learned: list, reviews: samples.Split, verbose) -> dict:
    """What was trained, by its folder; what the folders hold of the same settings is not trained again."""
    first = folder / "pretraining"
    found = {"pretraining": kept_training.kept(first, settings.pretraining)}
    found["pretraining"] = found["pretraining"] or pretrain(first, settings.pretraining, verbose)
    both = {
        "words": (
            tasks.TokenClassifier,
            ([list(text_of(part)) for part in learned], [labels_of(part) for part in learned]),
            LABELS,
        ),
        "reviews": (tasks.TextClassifier, (reviews.train_texts, reviews.train_labels), reviews.labels),
    }
    for name, (task, data, labels) in both.items():
        for start in STARTS:
            place = folder / f"{name}-{start}"
            tuned = Tuned(start, settings.pretraining, getattr(settings, name))
            done = kept_training.kept(place, tuned)
            model = first / kept_training.MODEL
            found[place.name] = done or tune(task, data, labels, place, model, tuned, verbose)
    return found


# ---- measuring -----------------------------------------------------------------------------------------------------


def timed(work: Callable):
    """What work returns, and its seconds of the processor."""
    start = time.process_time()
    return work(), time.process_time() - start


def measure_words(folder: Path, learned: list, test: list) -> dict:
    """Scores on the last days of the baselines, the taggers and the file of the pretrained one."""
    texts, wanted = [text_of(part) for part in test], [labels_of(part) for part in test]
    known = {word for part in learned for word, _ in part}
    characters = [list(text) for text in texts]
    models = {
        start: tasks.TokenClassifier.from_pretrained(folder / f"words-{start}" / kept_training.MODEL)
        for start in STARTS
    }
    length = models["pretrained"].encode(characters)["token_ids"].shape[1]
    made = export.export_litert(
        models["pretrained"], folder / TAGGER, sequence_length=length, samples=characters[:SHOWN]
    )
    file = export.LiteRTModel(folder / TAGGER)
    ways = {
        "longest known words": lambda: baselines.longest_words(learned, texts),
        "random fields": lambda: baselines.random_fields(learned, texts),
        **{start: lambda model=model: model.predict(characters, 64, verbose=0) for start, model in models.items()},
        "litert": lambda: file.predict(characters),
    }
    found, variants = {}, {}
    for name, way in ways.items():
        found[name], seconds = timed(way)
        variants[name] = {**scores(texts, wanted, found[name], known), "processor_seconds": seconds}
    pairs = list(zip(found["pretrained"], found["litert"], strict=True))
    same = [np.array(one) == np.array(other) for one, other in pairs]
    shown = [
        {"text": text, **{name: words_and_names(text, found[name][index]) for name in ("random fields", "litert")}}
        for index, text in list(enumerate(texts))[:: max(1, len(texts) // SHOWN)][:SHOWN]
    ]
    return {
        "variants": variants,
        "sentences": len(texts),
        "characters": sum(map(len, texts)),
        "learned_characters": sum(len(text_of(part)) for part in learned),
        "bytes": made.bytes,
        "relative_error": made.error,
        "same_labels": float(np.concatenate(same).mean()),
        "same_sentences": float(np.mean([one.all() for one in same])),
        "shown": shown,
    }


def measure_reviews(folder: Path, reviews: samples.Split, length: int) -> dict:
    """Accuracy on the test reviews of TF-IDF, the models, and the file of the pretrained one."""
    texts, wanted = reviews.test_texts, np.array(reviews.test_labels)
    models = {
        start: tasks.TextClassifier.from_pretrained(
            folder / f"reviews-{start}" / kept_training.MODEL, sequence_length=length
        )
        for start in STARTS
    }
    made = export.export_litert(models["pretrained"], folder / JUDGE, sequence_length=length, samples=texts[:SHOWN])
    file = export.LiteRTModel(folder / JUDGE)

    def named(probabilities) -> list[str]:
        return [reviews.labels[index] for index in np.argmax(probabilities, -1)]

    ways = {
        "counted characters": lambda: baselines.counted_characters(reviews.train_texts, reviews.train_labels, texts),
        **{start: lambda model=model: named(model.predict(texts, 64, verbose=0)) for start, model in models.items()},
        "litert": lambda: named(file.predict(texts)),
    }
    found, variants = {}, {}
    for name, way in ways.items():
        answers, seconds = timed(way)
        found[name] = np.array(answers)
        of_labels = [f1(found[name] == label, wanted == label) for label in reviews.labels]
        accuracy, macro_f1 = float((found[name] == wanted).mean()), float(np.mean(of_labels))
        variants[name] = {"accuracy": accuracy, "macro_f1": macro_f1, "processor_seconds": seconds}
    return {
        "variants": variants,
        "learned": len(reviews.train_texts),
        "test": len(texts),
        "bytes": made.bytes,
        "relative_error": made.error,
        "same_labels": float((found["pretrained"] == found["litert"]).mean()),
    }


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Trains what the folder does not hold, exports and measures."""
    learned, test = news(settings.pretraining, settings.words)
    reviews, dials = samples.chinese_reviews(), settings.reviews
    pairs = chosen(list(zip(reviews.train_texts, reviews.train_labels, strict=True)), dials.count)
    test_pairs = chosen(list(zip(reviews.test_texts, reviews.test_labels, strict=True)), dials.test_count)
    columns = [list(column) for rows in (pairs, test_pairs) for column in zip(*rows, strict=True)]
    reviews = samples.Split(*columns, reviews.labels)
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "training": all_trained(folder, settings, learned, reviews, verbose),
        "fillings": fillings(folder / "pretraining" / kept_training.MODEL),
        "words": measure_words(folder, learned, test),
        "reviews": measure_reviews(folder, reviews, dials.length),
    }


def fillings(folder: Path) -> dict:
    """The likeliest characters for the masks of some texts."""
    model = tasks.MaskedLM.from_pretrained(folder)
    predicted = model.predict(list(MASKED), verbose=0)
    return {text: [one.token for one in masks[0]] for text, masks in zip(MASKED, predicted, strict=True)}


def by_files(folder: Path, text: str) -> str:
    """A text with spaces between its words, its names marked, and what it thinks as a review."""
    (labels,) = export.LiteRTModel(folder / TAGGER).predict([list(text)])
    judge = export.LiteRTModel(folder / JUDGE)
    likely = dict(zip(judge.labels, judge.predict([text])[0], strict=True))
    return f"{words_and_names(text, labels)}\t{max(likely, key=likely.get)} ({max(likely.values()):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few texts: to see it run, not to measure it")
    parser.add_argument("--text", nargs="+", help="read these by the files, once they are there")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "chinese")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    if not (options.text and (folder / JUDGE).is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        results = run(folder, QUICK if options.quick else Settings(), verbose="auto")
        report.keep_results(results, section(results), folder, None if options.quick else HOME)
        save_figure(drawn(results), (folder if options.quick else HOME) / "scores.png")
    for text in options.text or ():
        print(by_files(folder, text))


if __name__ == "__main__":
    main()
