"""Topics and sentiment of a newswire over time: two MiniLMs, each an int8 file, read Reuters' news of 1987.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/finance_news/run.py [--quick]

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
import news
import numpy as np
import page
from sklearn.metrics import f1_score, roc_auc_score

from tfxformer import export, samples, tasks
from tfxformer.figures import save_figure
from tfxformer.recipes import kept_training, pipeline, report

HOME = Path(__file__).parent
TOPICS, SENTIMENT, PICTURE = "topics-int8.tflite", "sentiment-int8.tflite", "over-time.png"


@dataclass(frozen=True)
class Settings:
    """The dials; the splits are none: Reuters' by time, the editorials' by article.

    Attributes:
        articles, sentences: int or None, to learn, to see it run; None for all.
        tested: int or None, articles and sentences to test on, the first ones; None for all.
        topic_tokens, sentiment_tokens: int, what is longer is cut.
        topic_epochs, topic_batch, topic_rate: of the topics; the rate is the highest, falling to 0 on a line.
        sentiment_epochs, sentiment_batch, sentiment_rate: of the sentiment.
        window: int, articles of a point of the picture.
    """

    articles: int | None = None
    sentences: int | None = None
    tested: int | None = None
    topic_tokens: int = 64
    topic_epochs: int = 3
    topic_batch: int = 16
    topic_rate: float = 2e-4
    sentiment_tokens: int = 48
    sentiment_epochs: int = 2
    sentiment_batch: int = 32
    sentiment_rate: float = 1e-4
    window: int = 100
    seed: int = 0


QUICK = replace(Settings(), articles=96, sentences=96, tested=120, window=20)


def train_topics(folder: Path, wire: samples.Split, settings: Settings, verbose) -> dict:
    """Fine-tunes MiniLM to say the topic of an article."""
    if (kept := kept_training.kept(folder, settings)) is not None:
        return kept
    keras.utils.set_random_seed(settings.seed)
    rows = list(zip(*news.first_of_each(wire.train_texts, wire.train_labels, wire.test_texts), strict=True))
    random.Random(settings.seed).shuffle(rows)  # the wire's order would leave April for the end
    texts, labels = (list(column) for column in zip(*rows[: settings.articles], strict=True))
    model = tasks.TextClassifier.from_pretrained(
        samples.minilm(), labels=wire.labels, sequence_length=settings.topic_tokens
    )
    model.compile(learning_rate=settings.topic_rate)
    dials = {"batch_size": settings.topic_batch, "epochs": settings.topic_epochs, "verbose": verbose}
    facts = {"rows": len(texts)}
    return kept_training.fit(
        model, texts, labels, folder=folder, settings=settings, save_every=20, facts=facts, **dials
    )


def train_sentiment(folder: Path, learned: list[samples.ScoredText], settings: Settings, verbose) -> dict:
    """Fine-tunes MiniLM to say the score of a sentence."""
    if (kept := kept_training.kept(folder, settings)) is not None:
        return kept
    keras.utils.set_random_seed(settings.seed)
    model = tasks.TextClassifier.from_pretrained(
        samples.minilm(),
        labels=["sentiment"],
        problem_type="regression",
        sequence_length=settings.sentiment_tokens,
    )
    model.compile(learning_rate=settings.sentiment_rate)
    texts, scores = [row.text for row in learned], [[row.score] for row in learned]
    dials = {"batch_size": settings.sentiment_batch, "epochs": settings.sentiment_epochs, "verbose": verbose}
    facts = {"rows": len(texts)}
    return kept_training.fit(
        model, texts, scores, folder=folder, settings=settings, save_every=20, facts=facts, **dials
    )


def written(folder: Path, name: str, length: int, texts: list[str]):
    """(model, its int8 file opened, the file's bytes) of what was trained in a folder."""
    model = tasks.TextClassifier.from_pretrained(folder / Path(name).stem.removesuffix("-int8") / kept_training.MODEL)
    made = export.export_litert(model, folder / name, sequence_length=length, samples=texts[:8])
    return model, export.LiteRTModel(folder / name), made.bytes


def by_keras(model, texts: list[str], length: int) -> np.ndarray:
    return model.predict(model.encode(texts, sequence_length=length), 64, verbose=0)


def compared(ours, others) -> dict:
    """By how much ours is better, with its 95 % interval by bootstraps of the texts."""
    gaps = np.subtract(ours, others)
    return {"mean": float(gaps.mean()), "interval": report.interval(gaps)}


def measure_topics(folder: Path, wire: samples.Split, settings: Settings) -> tuple[dict, list[str]]:
    """How often the topic is right, by counted words, by Keras and by the file; and what the file says."""
    model, file, size = written(folder, TOPICS, settings.topic_tokens, wire.test_texts)
    begun = time.process_time()
    said = {"file": [file.labels[one] for one in file.predict(wire.test_texts).argmax(-1)]}
    seconds = time.process_time() - begun
    keras_answers = by_keras(model, wire.test_texts, settings.topic_tokens).argmax(-1)
    said["keras"] = [model.labels[one] for one in keras_answers]
    said["svm"] = news.svm_topics(wire)
    right = {name: np.equal(said[name], wire.test_labels).astype(float) for name in ("svm", "keras", "file")}
    return {
        "variants": {
            name: {
                "accuracy": float(one.mean()),
                "interval": report.interval(one),
                "macro_f1": float(f1_score(wire.test_labels, said[name], average="macro", zero_division=0.0)),
            }
            for name, one in right.items()
        },
        "advantage": compared(right["file"], right["svm"]),
        "same_as_keras": float(np.equal(said["file"], said["keras"]).mean()),
        "bytes": size,
        "milliseconds": 1000 * seconds / len(wire.test_texts),
    }, said["file"]


def measure_sentiment(folder: Path, learned: list, held_out: list, wire: samples.Split, settings: Settings):
    """(How near scores come on held-out sentences and what they make of earnings reports; the file)."""
    sentences, wanted = [row.text for row in held_out], np.array([row.score for row in held_out])
    model, file, size = written(folder, SENTIMENT, settings.sentiment_tokens, sentences)
    regression = news.ridge(learned)
    scorers = {
        "vader": news.vader,
        "ridge": regression.predict,
        "keras": lambda texts: by_keras(model, texts, settings.sentiment_tokens)[:, 0],
        "file": lambda texts: file.predict(texts)[:, 0],
    }
    reports = [(text, news.turn(text)) for text in dict.fromkeys(wire.train_texts + wire.test_texts)]
    reports = [row for row in reports if row[1]]
    turns = np.array([row[1] for row in reports])
    decided, found, variants = wanted != 0, {}, {}
    for name, scorer in scorers.items():
        found[name], of_reports = np.asarray(scorer(sentences)), np.asarray(scorer([row[0] for row in reports]))
        sign = (np.sign(found[name]) == np.sign(wanted))[decided].astype(float)
        variants[name] = {
            "correlation": news.bootstrapped(news.correlation, found[name], wanted),
            "sign": {"mean": float(sign.mean()), "interval": report.interval(sign)},
            "reports_auc": news.bootstrapped(lambda scores, truth: roc_auc_score(truth > 0, scores), of_reports, turns),
        }
    others = ("ridge", "vader")
    gaps = {
        name: news.bootstrapped(
            lambda ours, other, truth: news.correlation(ours, truth) - news.correlation(other, truth),
            found["file"],
            found[name],
            wanted,
        )
        for name in others
    }
    return {
        "variants": variants,
        "advantage": gaps,
        "reports": len(reports),
        "same_as_keras": float(np.corrcoef(found["file"], found["keras"])[0, 1]),
        "bytes": size,
    }, file


def over_time(wire: samples.Split, topics: list[str], scores: np.ndarray, size: int) -> dict:
    """The shares of topics, as found and as Reuters gave them, and the mean sentiment, a window at a time."""
    parts = news.windows(np.arange(len(topics)), size)
    shares = {
        name: {label: [float(np.equal(np.take(said, part), label).mean()) for part in parts] for label in wire.labels}
        for name, said in (("found", topics), ("reuters", wire.test_labels))
    }
    by_topic = {label: scores[np.equal(topics, label)] for label in wire.labels}
    return {
        "article": [float(part.mean()) for part in parts],
        "shares": shares,
        "sentiment": [float(scores[part].mean()) for part in parts],
        "interval": [report.interval(scores[part]) for part in parts],
        "of_topics": {
            label: {"mean": float(one.mean()), "interval": report.interval(one), "articles": len(one)}
            for label, one in by_topic.items()
            if len(one)
        },
    }


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Trains, unless the folder holds what these settings gave, exports, measures, and reads the later news."""
    wire = samples.reuters_r8()
    wire = wire._replace(test_texts=wire.test_texts[: settings.tested], test_labels=wire.test_labels[: settings.tested])
    learned, held_out = news.by_article(samples.nyt_editorials(), 0.2)
    learned, held_out = learned[: settings.sentences], held_out[: settings.tested]
    trained = {
        "sentiment": train_sentiment(folder / "sentiment", learned, settings, verbose),
        "topics": train_topics(folder / "topics", wire, settings, verbose),
    }
    topics, of_file = measure_topics(folder, wire, settings)
    print({name: one["accuracy"] for name, one in topics["variants"].items()}, flush=True)
    sentiment, file = measure_sentiment(folder, learned, held_out, wire, settings)
    print({name: one["correlation"]["mean"] for name, one in sentiment["variants"].items()}, flush=True)
    scores = file.predict(wire.test_texts)[:, 0]
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "data": {
            "articles": {"learned": trained["topics"]["rows"], "tested": len(wire.test_texts)},
            "sentences": {"learned": len(learned), "tested": len(held_out)},
        },
        "training": trained,
        "topics": topics,
        "sentiment": sentiment,
        "over_time": over_time(wire, of_file, scores, settings.window),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few texts: to see it run, not to measure it")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "finance-news")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    folder.mkdir(parents=True, exist_ok=True)
    results = run(folder, QUICK if options.quick else Settings(), verbose=2)
    home = None if options.quick else HOME
    report.keep_results(results, page.section(results), folder, home)
    for place in filter(None, (folder, home)):
        save_figure(page.drawn(results["over_time"]), place / PICTURE)


if __name__ == "__main__":
    main()
