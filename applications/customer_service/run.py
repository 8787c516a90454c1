"""A question comes in: its category, the answer of the FAQ that fits, and a reply, each by a file for a phone.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/customer_service/run.py [--quick] [--ask TEXT ...]

What was trained is kept in the output folder: a run that was ended goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import faq
import keras
import numpy as np
import page
import replies
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from tfxformer import export, samples, tasks, training
from tfxformer.data.retrieval import nearest, similarities
from tfxformer.files import write_json
from tfxformer.json_files import read_json
from tfxformer.recipes import kept_training, pipeline, report

HOME = Path(__file__).parent
CATEGORIES, EMBEDDER, CHAT = "categories-int8.tflite", "embedder-int8.tflite", "smollm2-int8.tflite"
ANSWERS, VECTORS = "answers.json", "vectors.npy"
QUESTION_TOKENS, ANSWER_TOKENS = 24, 96  # of the files
CACHE_LENGTH, PREFILL_LENGTHS = 384, (32, 192)


@dataclass(frozen=True)
class Settings:
    """The dials; the split is none: two fifths of each category, by seed 0.

    Attributes:
        rows: int or None, of the FAQ, to see it run; None for all.
        category_epochs, category_batch, category_rate: of the classifier, whose texts have `category_tokens` at most;
            the rate is the highest, falling to 0 on a line.
        answer_epochs, answer_batch, answer_rate: of the embedder, whose texts have `answer_tokens` at most.
        temperature: float, what the embedder's cosines are divided by in training.
        replies: int, held-out questions that the chat model answers.
        reply_tokens: int, of a reply at most.
    """

    rows: int | None = None
    category_epochs: int = 8
    category_batch: int = 16
    category_rate: float = 4e-4
    category_tokens: int = 24
    answer_epochs: int = 4
    answer_batch: int = 32
    answer_rate: float = 1e-4
    answer_tokens: int = 48
    temperature: float = 0.05
    replies: int = 20
    reply_tokens: int = 48
    seed: int = 0


QUICK = replace(Settings(), rows=60, category_epochs=1, answer_epochs=1, replies=2, reply_tokens=16)


@dataclass(frozen=True)
class Desk:
    """The questions and answers, and which of the questions are held out."""

    rows: list[samples.FaqEntry]
    learned: list[samples.FaqEntry]
    held_out: list[samples.FaqEntry]
    own: list[int]  # the place of each held-out question's answer

    @property
    def answers(self) -> list[str]:
        return [row.answer for row in self.rows]

    @property
    def questions(self) -> list[str]:
        return [row.question for row in self.held_out]

    @property
    def categories(self) -> list[str]:
        return [row.category for row in self.held_out]


def desk(settings: Settings) -> Desk:
    rows = faq.asked_once(samples.construction_faq())[: settings.rows]
    learned, held_out = faq.split(rows, 0.4)
    return Desk(rows, [rows[place] for place in learned], [rows[place] for place in held_out], held_out)


def to_classify(rows: list[samples.FaqEntry]) -> tuple[list[str], list[str]]:
    """What a classifier learns of: questions and answers, each of its category."""
    return [text for row in rows for text in row[1:]], [row.category for row in rows for _ in row[1:]]


def train_categories(folder: Path, found: Desk, settings: Settings, verbose) -> dict:
    """Fine-tunes MiniLM to say the category of a question."""
    if (kept := kept_training.kept(folder, settings)) is not None:
        return kept
    keras.utils.set_random_seed(settings.seed)
    texts, labels = to_classify(found.learned)
    options = {"labels": sorted(set(labels)), "sequence_length": settings.category_tokens}
    model = tasks.TextClassifier.from_pretrained(samples.minilm(), **options)
    model.compile(learning_rate=settings.category_rate)
    dials = {"batch_size": settings.category_batch, "epochs": settings.category_epochs, "verbose": verbose}
    return kept_training.fit(model, texts, labels, folder=folder, settings=settings, save_every=200, **dials)


def train_embedder(folder: Path, found: Desk, settings: Settings, verbose) -> dict:
    """Fine-tunes MiniLM: a question's own answer is the nearest of all in the batch."""
    if (kept := kept_training.kept(folder, settings)) is not None:
        return kept
    keras.utils.set_random_seed(settings.seed)
    model = tasks.ContrastiveEmbedder.from_pretrained(
        samples.minilm(), temperature=settings.temperature, sequence_length=settings.answer_tokens
    )
    steps = -(-len(found.learned) // settings.answer_batch) * settings.answer_epochs
    model.compile(training.AdamW(training.WarmupLinear(settings.answer_rate, steps, warmup=0.1), 0.01))
    pairs = [(row.question, row.answer) for row in found.learned]
    dials = {"batch_size": settings.answer_batch, "epochs": settings.answer_epochs, "verbose": verbose}
    return kept_training.fit(model, pairs, folder=folder, settings=settings, save_every=50, **dials)


def measure_categories(folder: Path, found: Desk) -> dict:
    """How often the category is right, by counted words, by Keras and by the file."""
    model = tasks.TextClassifier.from_pretrained(folder / "categories" / kept_training.MODEL)
    made = export.export_litert(
        model, folder / CATEGORIES, sequence_length=QUESTION_TOKENS, samples=found.questions[:8]
    )
    file, begun = export.LiteRTModel(folder / CATEGORIES), time.process_time()
    labels = {"file": [file.labels[one] for one in file.predict(found.questions).argmax(-1)]}
    seconds = time.process_time() - begun
    batch = model.encode(found.questions, sequence_length=QUESTION_TOKENS)
    labels["keras"] = [model.labels[one] for one in model.predict(batch, 64, verbose=0).argmax(-1)]
    counts = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    svm = make_pipeline(counts, LinearSVC()).fit(*to_classify(found.learned))
    labels["svm"] = list(svm.predict(found.questions))
    right = {name: np.equal(labels[name], found.categories).astype(float) for name in ("svm", "keras", "file")}
    return {
        "variants": {
            name: {"accuracy": float(one.mean()), "interval": report.interval(one)} for name, one in right.items()
        },
        "advantage": compared(right["file"], right["svm"]),
        "same_as_keras": float(np.equal(labels["file"], labels["keras"]).mean()),
        "bytes": made.bytes,
        "milliseconds": 1000 * seconds / len(found.questions),
    }


def compared(ours, others) -> dict:
    """By how much ours is better, with its 95 % interval by bootstraps of the questions."""
    gaps = np.subtract(ours, others)
    return {"mean": float(gaps.mean()), "interval": report.interval(gaps)}


def by_keras(model: tasks.TextEmbedder, found: Desk) -> np.ndarray:
    """The cosines of questions and answers, each cut as the file cuts them."""
    lengths = ((found.questions, QUESTION_TOKENS), (found.answers, ANSWER_TOKENS))
    vectors = [model.predict(model.encode(texts, sequence_length=size), 32, verbose=0) for texts, size in lengths]
    return similarities(*vectors)


def measure_answers(folder: Path, found: Desk) -> dict:
    """How each way ranks the answers of every held-out question; the file's vectors stay in the folder."""
    before = tasks.TextEmbedder.from_pretrained(samples.minilm())
    model = tasks.TextEmbedder.from_pretrained(folder / "embedder" / kept_training.MODEL)
    lengths = (QUESTION_TOKENS, ANSWER_TOKENS)
    made = export.export_litert(model, folder / EMBEDDER, sequence_lengths=lengths, samples=found.answers[:4])
    file = export.LiteRTModel(folder / EMBEDDER)
    vectors = file.predict(found.answers)
    cosines = {
        "tf_idf": faq.tf_idf(found.questions, found.answers),
        "bm25": faq.bm25(found.questions, found.answers),
        "before": by_keras(before, found),
        "keras": by_keras(model, found),
        "file": similarities(file.predict(found.questions), vectors),
    }
    np.save(folder / VECTORS, vectors.astype("float16"))
    write_json(folder / ANSWERS, found.answers)
    places = {name: faq.ranks(one, found.own) for name, one in cosines.items()}
    reciprocal = {name: 1 / (one + 1) for name, one in places.items()}
    first = {name: (one == 0).astype(float) for name, one in places.items()}
    return {
        "variants": {
            name: {
                "mrr": float(reciprocal[name].mean()),
                "mrr_interval": report.interval(reciprocal[name]),
                "recall@1": float(first[name].mean()),
                "recall@1_interval": report.interval(first[name]),
                "recall@5": float((places[name] < 5).mean()),
            }
            for name in cosines
        },
        "advantage": {name: compared(reciprocal["file"], reciprocal[name]) for name in ("tf_idf", "bm25", "before")},
        "same_first": float((cosines["file"].argmax(1) == cosines["keras"].argmax(1)).mean()),
        "bytes": made.bytes,
        "found": cosines["file"].argmax(1).tolist(),
    }


def chat_file(folder: Path) -> Path:
    """SmolLM2 as an int8 file, written once."""
    path = folder / CHAT
    if not path.is_file():
        lm = tasks.CausalLM.from_pretrained(samples.smollm2())
        export.export_litert(lm, path, cache_length=CACHE_LENGTH, prefill_lengths=PREFILL_LENGTHS)
    return path


def measure_replies(folder: Path, found: Desk, places: list[int], settings: Settings) -> dict:
    """Replies of the chat model with and without the answer that was found, beside that answer itself."""
    generator = export.LiteRTGenerator(chat_file(folder))
    rows = found.held_out[: settings.replies]
    retrieved = [found.answers[place] for place in places[: settings.replies]]
    said, begun = {"answer": retrieved}, time.perf_counter()
    for name, given in (("chat_with_answer", retrieved), ("chat_alone", [None] * len(rows))):
        said[name] = [
            generator.chat(replies.messages(row.question, answer), settings.reply_tokens, temperature=0.0).strip()
            for row, answer in zip(rows, given, strict=True)
        ]
    seconds = time.perf_counter() - begun
    wanted = [row.answer for row in rows]
    variants = {name: replies.measured(one, retrieved, wanted) for name, one in said.items()}
    each = {name: one.pop("each_f1") for name, one in variants.items()}
    return {
        "questions": len(rows),
        "found": float(np.mean([one == answer for one, answer in zip(retrieved, wanted, strict=True)])),
        "variants": variants,
        "f1_beside": {name: compared(each["chat_with_answer"], each[name]) for name in ("answer", "chat_alone")},
        "seconds_a_reply": seconds / (2 * len(rows)),
        "bytes": (folder / CHAT).stat().st_size,
        "shown": [
            {"question": row.question, **{name: said[name][index] for name in said}}
            for index, row in enumerate(rows[:4])
        ],
    }


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Trains, unless the folder holds what these settings gave, exports and measures."""
    found = desk(settings)
    trained = {
        name: train(folder / name, found, settings, verbose)
        for name, train in (("embedder", train_embedder), ("categories", train_categories))
    }
    answers = measure_answers(folder, found)
    print({name: one["mrr"] for name, one in answers["variants"].items()}, flush=True)
    categories = measure_categories(folder, found)
    print({name: one["accuracy"] for name, one in categories["variants"].items()}, flush=True)
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "data": {
            "questions": len(found.rows),
            "learned": len(found.learned),
            "held_out": len(found.held_out),
            "categories": len({row.category for row in found.rows}),
        },
        "training": trained,
        "categories": categories,
        "answers": answers,
        "replies": measure_replies(folder, found, answers.pop("found"), settings),
    }


def reply(folder: Path, question: str) -> str:
    """What the three files say to a question."""
    categories, embedder = (export.LiteRTModel(folder / name) for name in (CATEGORIES, EMBEDDER))
    category = categories.labels[categories.predict([question])[0].argmax()]
    answers = read_json(folder / ANSWERS, list)
    ((best,),) = nearest(embedder.predict([question]), np.load(folder / VECTORS), 1)
    said = export.LiteRTGenerator(folder / CHAT).chat(
        replies.messages(question, answers[best.index]), Settings().reply_tokens, temperature=0.0
    )
    return f"category  {category}\nanswer    {answers[best.index]}\nreply     {said.strip()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few questions: to see it run, not to measure it")
    parser.add_argument("--ask", nargs="+", metavar="TEXT", help="ask the files")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "customer-service")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    if not (options.ask and (folder / CHAT).is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        results = run(folder, QUICK if options.quick else Settings(), verbose=2)
        report.keep_results(results, page.section(results), folder, None if options.quick else HOME)
    for question in options.ask or ():
        print(reply(folder, question))


if __name__ == "__main__":
    main()
