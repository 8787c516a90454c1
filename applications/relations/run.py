"""How are two words related? MiniLM reads WordNet's glosses with both words marked, with its usual head and R-BERT's.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/relations/run.py [--quick]
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import keras

from tfxformer import compression, data, export, samples, tasks
from tfxformer.data.evaluation import scores
from tfxformer.recipes import pipeline, report
from tfxformer.samples.formats.wordnet import Relation

HOME = Path(__file__).parent
MODEL, FILE = "relations.keras", "relations-int8.tflite"
LABELS = (
    *("antonym", "attribute", "domain_region", "domain_topic", "has_member", "has_part", "has_substance", "hypernym"),
    *("instance_of", "member_of", "part_of", "similar_to", "substance_of"),
)
HEAD, TAIL = "HEADWORD", "TAILWORD"  # what stands for both words in the baseline's texts
NAMES = {
    "majority": "the most frequent relation",
    "tfidf": "TF-IDF of 1 to 3 words, linear SVM",
    "first_token": "MiniLM, the first token of the marked text",
    "entities": "MiniLM, R-BERT's head",
    "litert": "the int8 file of R-BERT's",
}


@dataclass(frozen=True)
class Settings:
    """The dials.

    Attributes:
        most: int, rows of a relation, by seed 0.
        sequence_length: int, tokens of a marked text; rows with more are left out.
        learning_rate: float, the highest, falling to 0 on a line.
    """

    most: int = 1_000
    sequence_length: int = 40
    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 3e-4
    dtype: str = "mixed_bfloat16"
    seed: int = 0


QUICK = replace(Settings(), most=20, epochs=1)


def marked(row: Relation) -> str:
    return data.mark_entities(row.text, row.head, row.tail)


def rows_of(found: list[Relation], tokenizer, settings: Settings) -> list[Relation]:
    """At most so many of each relation, in an order by seed 0; none that is too long when marked."""
    rows = sorted(row for row in found if row.label in LABELS)
    random.Random(0).shuffle(rows)
    counts = tokenizer.with_tokens(data.ENTITY_MARKERS).token_counts(list(map(marked, rows)))
    kept, seen = [], Counter()
    for row, count in zip(rows, counts, strict=True):
        if count <= settings.sequence_length and seen[row.label] < settings.most:
            seen[row.label] += 1
            kept.append(row)
    return kept


def split(rows: list[Relation]) -> tuple[list[Relation], list[Relation]]:
    """Four fifths to learn; the rows of a gloss are in the same part."""
    texts = sorted({row.text for row in rows})
    random.Random(0).shuffle(texts)
    held_out = set(texts[int(len(texts) * 0.8) :])
    return [row for row in rows if row.text not in held_out], [row for row in rows if row.text in held_out]


def masked(row: Relation) -> str:
    """The text of the baseline: the two words are not said, but where they stand."""
    (head, end), (begin, tail) = row.head, row.tail
    return f"{row.text[:head]}{HEAD}{row.text[end:begin]}{TAIL}{row.text[tail:]}"


def baselines(learned: list[Relation], held_out: list[Relation]) -> dict:
    """What counting reaches: the most frequent relation, and the better of two texts for TF-IDF and a linear SVM."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    labels = [row.label for row in learned]
    most = Counter(labels).most_common(1)[0][0]
    found = {"majority": scored([most] * len(held_out), held_out)}
    ways = {
        "both words masked": masked,
        "the gloss's word masked": lambda row: f"{row.text[: row.tail[0]]}{TAIL}{row.text[row.tail[1] :]}",
    }
    for name, text_of in ways.items():
        counts = TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True)
        model = make_pipeline(counts, LinearSVC()).fit(list(map(text_of, learned)), labels)
        one = {**scored(list(model.predict(list(map(text_of, held_out)))), held_out), "text": name}
        if one["accuracy"] > found.get("tfidf", {"accuracy": 0.0})["accuracy"]:
            found["tfidf"] = one
    return found


def scored(answers: list[str], held_out: list[Relation]) -> dict:
    from sklearn.metrics import accuracy_score, f1_score

    wanted = [row.label for row in held_out]
    macro = f1_score(wanted, answers, average="macro", zero_division=0.0)
    return {"accuracy": float(accuracy_score(wanted, answers)), "macro_f1": float(macro)}


def fresh(reads: str | None, settings: Settings) -> tasks.TextClassifier:
    """MiniLM with rows for the marks, and a new head."""
    keras.utils.set_random_seed(settings.seed)
    options = {"sequence_length": settings.sequence_length}
    loaded = tasks.TextClassifier.from_pretrained(
        samples.minilm(), labels=list(LABELS), dtype=settings.dtype, **options
    )
    grown = compression.add_tokens(loaded, data.ENTITY_MARKERS)
    if reads is None:
        return grown
    return tasks.TextClassifier(grown.backbone, list(LABELS), tokenizer=grown.tokenizer, reads=reads, **options)


def trained(reads: str | None, learned: list[Relation], settings: Settings, verbose):
    """(classifier, seconds of the processor)."""
    classifier, begun = fresh(reads, settings), time.process_time()
    dials = {name: getattr(settings, name) for name in ("epochs", "batch_size", "learning_rate")}
    pipeline.fit(classifier, list(map(marked, learned)), [row.label for row in learned], **dials, verbose=verbose)
    return classifier, time.process_time() - begun


def measured(model, held_out: list[Relation]) -> dict:
    found = scores(model, list(map(marked, held_out)), [row.label for row in held_out], batch_size=128)
    return {name: found[name] for name in ("accuracy", "macro_f1")}


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Trains both heads, writes the second one's model and file, and measures all on the same rows."""
    tokenizer = fresh(None, settings).tokenizer
    rows = rows_of(samples.wordnet_relations(), tokenizer, settings)
    learned, held_out = split(rows)
    variants = baselines(learned, held_out)
    for name, reads in (("first_token", None), ("entities", "entities")):
        classifier, seconds = trained(reads, learned, settings, verbose)
        variants[name] = {**measured(classifier, held_out), "processor_seconds": seconds}
        print(name, variants[name], flush=True)
    pipeline.save_keras(classifier, folder / MODEL)
    opened = keras.saving.load_model(folder / MODEL)
    compared = list(map(marked, held_out[:500]))
    made = export.export_litert(opened, folder / FILE, sequence_length=settings.sequence_length)
    file = export.LiteRTModel(folder / FILE)
    answers = [model.predict(compared).argmax(-1) for model in (file, opened)]
    variants["litert"] = {
        **measured(file, held_out),
        "bytes": made.bytes,
        "agreement": float((answers[0] == answers[1]).mean()),
        "compared": len(compared),
    }
    shown = [
        {"text": text, "wanted": row.label, "found": LABELS[answer]}
        for text, row, answer in list(zip(compared, held_out, answers[0], strict=False))[:8]
    ]
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "settings": asdict(settings),
        "data": {"learned": len(learned), "held_out": len(held_out), "relations": dict(Counter(r.label for r in rows))},
        "variants": variants,
        "shown": shown,
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    variants, dials, machine, rows = (results[name] for name in ("variants", "settings", "machine", "data"))
    table = [
        [
            NAMES[name],
            *(f"{one[score]:.3f}" for score in ("accuracy", "macro_f1")),
            report.cell(one, "processor_seconds", ".0f"),
            report.cell(one, "bytes", ".1f", 1e-6),
        ]
        for name, one in variants.items()
    ]
    file = variants["litert"]
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(rows["relations"].items(), key=lambda x: -x[1]))
    shown = "\n".join(f"- {one['text']}\n  - {one['found']} (WordNet: {one['wanted']})" for one in results["shown"])
    return f"""{report.markdown(["", "accuracy", "macro F1", "s of the processor", "MB"], table)}

{rows["learned"]:,} rows to learn and {rows["held_out"]:,} held out by their glosses, seed 0; at most {dials["most"]:,}
of a relation, {dials["sequence_length"]} tokens each: {counts}. {dials["epochs"]} epochs in batches of
{dials["batch_size"]}, peak learning rate {dials["learning_rate"]:g}, {dials["dtype"]}. Of two texts for the SVM the
better one is shown ({variants["tfidf"]["text"]}). The file names the relation that Keras names in
{file["agreement"]:.1%} of {file["compared"]} texts. {machine["cores"]} cores of {machine["processor"]},
{results["date"]}.

The first held-out rows, and what the file says:

{shown}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows: to see it run, not to measure it")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "relations")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    folder.mkdir(parents=True, exist_ok=True)
    results = run(folder, QUICK if options.quick else Settings(), verbose=2)
    report.keep_results(results, section(results), folder, None if options.quick else HOME)


if __name__ == "__main__":
    main()
