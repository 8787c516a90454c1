"""What a search for settings is worth on few labels: 200 movie reviews, a search of 8 trials, and texts to test on.

    python benchmarks/tuning.py

MiniLM-L6 on the VADER movie snippets, 48 tokens. `tfxformer tune` tries 8 settings by chance (learning rate, batch size
and weight decay; 3 epochs, 40 of the 200 texts held out, seed 0). Then the setting of `tfxformer finetune` by itself
and the best one of the search are each trained on the same texts under seeds that the search has not seen, stopped
early as in the search, and scored on all test snippets, which no search has read.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import harness
import quality

TEXTS, TRIALS, EPOCHS, LENGTH = 200, 8, 3, 48
SEEDS = (1, 2, 3)
RECIPE = {
    "model": "minilm",
    "data": "vader_movies",
    "sequence_length": LENGTH,
    "validation": 0.2,
    "search": {"method": "random", "trials": TRIALS, "epochs": EPOCHS, "objective": "val_loss"},
    "space": {
        "learning_rate": {"min": 1e-5, "max": 1e-3, "log": True},
        "batch_size": [8, 16, 32],
        "weight_decay": {"min": 0.0, "max": 0.1},
    },
}
PACKAGES = ["tensorflow", "keras", "keras-tuner"]


def tested(recipe, dials: dict, seed: int) -> str:
    """The answers on the test snippets, "1" where right, of a setting that is trained under a seed."""
    import keras

    from tfxformer import samples, tasks
    from tfxformer.recipes import pipeline
    from tfxformer.recipes.sweep.tuning import training

    split, search = samples.vader_movies(), recipe.search
    texts, labels = split.train_texts[: recipe.train_texts], split.train_labels[: recipe.train_texts]
    keras.utils.set_random_seed(seed)
    model = tasks.TextClassifier.from_pretrained(samples.minilm(), labels=split.labels, sequence_length=LENGTH)
    kept, held_out = pipeline.hold_out(texts, labels, recipe.validation, seed, "validation")
    stopping = {"early_stopping": search.early_stopping, "monitor": search.objective}
    settings = {"learning_rate": 5e-5, "batch_size": 32, "epochs": EPOCHS, **dials, **stopping}
    training.fit(model, *kept, **settings, validation_data=held_out, verbose=2)
    wanted = [split.labels.index(label) for label in split.test_labels]
    right = quality.right(model.predict(split.test_texts, batch_size=128, verbose=0).argmax(axis=1), wanted)
    keras.backend.clear_session()
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=TEXTS, help="with labels (default: %(default)s)")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--runs", type=Path, default=Path("build/tuning-runs"), help="folder of the search")
    options = parser.parse_args()

    from tfxformer.recipes.sweep import tuning
    from tfxformer.recipes.sweep.tuning.reading import make_recipe

    start = time.perf_counter(), time.process_time()
    recipe = make_recipe({**RECIPE, "train_texts": options.texts})
    found = tuning.run(recipe, options.runs, verbose=2, progress=lambda line: print(line, file=sys.stderr, flush=True))
    searched = quality.since(start)
    settings = {"finetune by itself": {}, "best of the search": found["trials"][found["best"]]["dials"]}
    answers = {name: [tested(recipe, dials, seed) for seed in options.seeds] for name, dials in settings.items()}
    accuracies = {name: [quality.accuracy(right) for right in answers[name]] for name in settings}
    results = {
        "what": f"MiniLM-L6 on {options.texts} VADER movie snippets: a search of {TRIALS} trials, and no search",
        "command": harness.command(),
        "machine": harness.machine(PACKAGES),
        "seeds": options.seeds,
        "labelled_texts": options.texts,
        "test_sentences": len(next(iter(answers.values()))[0]),
        "settings": settings,
        "trials": found["trials"],
        "accuracy_by_seed": accuracies,
        "points_won_by_seed": [
            100.0 * (best - own) for own, best in zip(*(accuracies[name] for name in settings), strict=True)
        ],
        "seconds_of_the_search": searched,
    }
    for name, values in accuracies.items():
        print(f"{name:20s} {statistics.mean(values):.4f}   seeds {' '.join(f'{value:.4f}' for value in values)}")
    print(harness.write("tuning", results))


if __name__ == "__main__":
    main()
