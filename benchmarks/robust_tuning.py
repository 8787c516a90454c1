"""What options for few examples are worth: 200 movie reviews, and topics that are learned one after another.

    python benchmarks/robust_tuning.py

MiniLM-L6, 24 tokens, 6 epochs, batch 16, learning rate 2e-4. The options have the values that their papers begin with;
adversarial training also has our default, 0.2, which was chosen when 1.0 had failed on these texts. "Few labels": 200
VADER movie snippets to train and the first 600 of the test snippets; each option beside plain fine-tuning of the same
seed. Augmented sets hold the texts and a changed copy of each, which takes twice the steps; "twice the epochs" is plain
fine-tuning with as many. Pseudo-labels are those of the plain model on 400 further snippets without their labels.

"Forgetting": one classifier of the five BBC topics learns three of them (40 texts each) and then the other two, by
plain fine-tuning, with a fifth as many old texts among the new ones, or with elastic weight consolidation. What counts
is the accuracy on test texts of the first three before and after, and of the two.

Each run is a file under --runs, and is not repeated where it is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import harness
import quality

TEXTS, TEST, UNLABELLED, LENGTH, EPOCHS, BATCH, RATE = 200, 600, 400, 24, 6, 16, 2e-4
EPSILONS, ALPHA, SHARE, THRESHOLD = (0.2, 1.0), 1.0, 0.1, 0.9
OLD, NEW, TOPIC_TEXTS, TOPIC_TEST, REPLAYED = ("business", "politics", "sport"), ("entertainment", "tech"), 40, 40, 0.2
STRENGTHS, FISHER_TEXTS = (1e3, 1e5), 60
SEEDS = (1, 2, 3)
PACKAGES = ["tensorflow", "keras"]
PLAIN = "plain fine-tuning"
FEW = (
    PLAIN,
    f"RDrop({ALPHA})",
    *(f"AdversarialTraining({epsilon})" for epsilon in EPSILONS),
    "twice the epochs",
    *(f"augment({kind!r})" for kind in ("deletion", "swap", "synonyms")),
    f"pseudo_labels(threshold={THRESHOLD})",
)
FORGETTING = (PLAIN, f"replay(share={REPLAYED})", *(f"ElasticWeightConsolidation({one:.0e})" for one in STRENGTHS))


def fitted(labels, texts, names, seed, epochs=EPOCHS, model=None, **arguments):
    """A classifier that is trained further, or anew from MiniLM."""
    import keras

    from tfxformer import samples, tasks

    keras.utils.set_random_seed(seed)
    if model is None:
        model = tasks.TextClassifier.from_pretrained(samples.minilm(), labels=labels, sequence_length=LENGTH)
    model.compile(learning_rate=RATE)
    model.fit(texts, names, batch_size=BATCH, epochs=epochs, verbose=0, **arguments)
    return model


def answers(model, texts, names) -> str:
    found = model.predict(texts, batch_size=128, verbose=0).argmax(axis=1)
    return quality.right(found, [model.labels.index(name) for name in names])


def _argument(setting: str) -> float:
    """The number in the brackets of a setting's name."""
    return float(setting.split("(")[1][:-1])


def few_labels(setting: str, seed: int) -> dict:
    """The answers on test snippets, "1" where right, of one option under a seed."""
    from tfxformer import data, samples, training

    split = samples.vader_movies()
    texts, names = split.train_texts[:TEXTS], split.train_labels[:TEXTS]
    arguments, facts = {}, {}
    if setting.startswith("RDrop"):
        arguments["callbacks"] = [training.RDrop(ALPHA)]
    elif setting.startswith("Adversarial"):
        arguments["callbacks"] = [training.AdversarialTraining(_argument(setting))]
    elif setting.startswith("twice"):
        arguments["epochs"] = 2 * EPOCHS
    elif setting.startswith("augment"):
        kind = setting.split("'")[1]
        synonyms = samples.wordnet_synonyms() if kind == "synonyms" else None
        texts = texts + data.augment(texts, kind, share=SHARE, seed=seed, synonyms=synonyms)
        names = names + names
    elif setting.startswith("pseudo"):
        further = slice(TEXTS, TEXTS + UNLABELLED)
        found = data.pseudo_labels(
            fitted(split.labels, texts, names, seed), split.train_texts[further], threshold=THRESHOLD
        )
        truth = split.train_labels[further]
        wrong = sum(label != truth[index] for label, index in zip(found.labels, found.indices, strict=True))
        facts = {"pseudo_labelled": len(found.texts), "wrongly": wrong}
        arguments["sample_weight"] = [1.0] * len(texts) + found.weights
        texts, names = texts + found.texts, names + found.labels
    model = fitted(split.labels, texts, names, seed, **arguments)
    return {"right": answers(model, split.test_texts[:TEST], split.test_labels[:TEST]), **facts}


def some(texts, names, topics, count):
    """The first `count` texts of each topic."""
    pairs = [pair for topic in topics for pair in [p for p in zip(texts, names, strict=True) if p[1] == topic][:count]]
    return [text for text, _ in pairs], [name for _, name in pairs]


def forgetting(setting: str, seed: int) -> dict:
    """Answers on the first topics before and after the others are learned, and on those."""
    from tfxformer import data, samples, training

    split = samples.bbc_topics()
    old = some(split.train_texts, split.train_labels, OLD, TOPIC_TEXTS)
    new = some(split.train_texts, split.train_labels, NEW, TOPIC_TEXTS)
    old_test, new_test = (some(split.test_texts, split.test_labels, part, TOPIC_TEST) for part in (OLD, NEW))
    model = fitted(split.labels, *old, seed)
    found = {"before": answers(model, *old_test)}
    arguments = {}
    if setting.startswith("replay"):
        new = data.replay(*new, *old, share=REPLAYED, seed=seed)
    elif setting.startswith("Elastic"):
        rows = old[0][:: len(old[0]) // FISHER_TEXTS]
        arguments["callbacks"] = [training.ElasticWeightConsolidation(model, rows, _argument(setting))]
    fitted(split.labels, *new, seed, model=model, **arguments)
    return found | {"after": answers(model, *old_test), "new": answers(model, *new_test)}


def one_run(folder: Path, part, setting: str, seed: int) -> dict:
    """A run's file, made where it is not there."""
    import keras

    path = folder / f"{part.__name__}-{setting.replace(chr(39), '')}-{seed}.json"
    if not path.exists():
        start = time.perf_counter(), time.process_time()
        found = part(setting, seed)
        keras.backend.clear_session()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**found, **quality.since(start)}), encoding="utf-8")
        print(path.name, {k: quality.accuracy(v) if isinstance(v, str) else v for k, v in found.items()}, flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def summed(runs: dict) -> dict:
    """Accuracies by seed, points above plain fine-tuning of the same seed, and the seconds, of each setting."""
    table = {}
    for setting, by_seed in runs.items():
        kinds = [name for name, value in by_seed[0].items() if isinstance(value, str)]
        accuracies = {kind: [quality.accuracy(run[kind]) for run in by_seed] for kind in kinds}
        facts = [name for name in by_seed[0] if name not in (*kinds, "seconds")]
        table[setting] = {"accuracy_by_seed": accuracies, **{fact: [run[fact] for run in by_seed] for fact in facts}}
        for kind, values in accuracies.items():
            plain = [quality.accuracy(run[kind]) for run in runs[PLAIN]]
            points = [100.0 * (own - other) for own, other in zip(values, plain, strict=True)]
            table[setting].setdefault("points_won_by_seed", {})[kind] = points
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--runs", type=Path, default=Path("build/robust-runs"), help="folder of the runs")
    options = parser.parse_args()
    parts = {few_labels: FEW, forgetting: FORGETTING}
    found = {part.__name__: {setting: [] for setting in settings} for part, settings in parts.items()}
    for seed in options.seeds:
        for part, settings in parts.items():
            for setting in settings:
                found[part.__name__][setting].append(one_run(options.runs, part, setting, seed))
    results = {
        "what": f"MiniLM-L6, {LENGTH} tokens, {EPOCHS} epochs, batch {BATCH}, learning rate {RATE}",
        "command": harness.command(options.runs),
        "machine": harness.machine(PACKAGES),
        "seeds": options.seeds,
        "labelled_texts": TEXTS,
        "test_texts": TEST,
        "old_topics": list(OLD),
        "new_topics": list(NEW),
        "texts_of_a_topic": TOPIC_TEXTS,
        **{part: summed(runs) for part, runs in found.items()},
    }
    for part in found:
        for setting, row in results[part].items():
            means = {kind: f"{statistics.mean(values):.4f}" for kind, values in row["accuracy_by_seed"].items()}
            print(f"{part:12s} {setting:40s} {means}")
    print(harness.write("robust_tuning", results))


if __name__ == "__main__":
    main()
