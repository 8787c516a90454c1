"""Do explanations name the words that count? Words are taken out of test sentences, the largest weights first.

Expected: see EXPLANATIONS.md beside, which the full run writes with deletion-curve.png and deletion.json.
Command: python applications/sentiment/explain.py [--model FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from datetime import date
from pathlib import Path

import numpy as np
from run import STORY

from tfxformer.figures import figure, save_figure
from tfxformer.recipes import pipeline, report
from tfxformer.recipes.latency import cores, processor_name
from tfxformer.tasks import TextClassifier
from tfxformer.tasks.explaining.attention_maps import attention_weights
from tfxformer.tasks.explaining.words import word_weights

HERE = Path(__file__).parent
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # of a text's words that are taken out
RANDOM_ORDERS = 5
MINIMUM_WORDS = 5
METHODS = {
    "integrated_gradients": "integrated gradients",
    "attention_rollout": "attention rollout",
    "last_attention": "attention of the last layer",
    "random": "random words",
}
PAGE = """# Do explanations name the words that count?

Written by `{command}`.

![The probability of the label, by how many words are gone and by what they were chosen](deletion-curve.png)

{section}"""


def without(text: str, words) -> str:
    """A text without some of its words, and without doubled spaces."""
    kept, done = [], 0
    for word in sorted(words, key=lambda word: word.start):
        kept.append(text[done : word.start])
        done = word.end
    return " ".join("".join([*kept, text[done:]]).split())


def shortened(text: str, order: list) -> list[str]:
    """The text with each of `SHARES` of its words gone, the first of `order` first."""
    return [without(text, order[: round(share * len(order))]) for share in SHARES]


def area(curve) -> float:
    """The mean height of a curve over `SHARES`, by trapezoids."""
    return float(np.trapezoid(curve, SHARES) / (SHARES[-1] - SHARES[0]))


def by_weight(words: list) -> list:
    return sorted(words, key=lambda word: -word.weight)


def last_attention(classifier, text: str) -> list:
    """Words by what the first token reads of them in the last layer, mean of the heads."""
    encoding = classifier.tokenizer.encode([text], sequence_length=classifier.sequence_length, return_offsets=True)
    count = int(encoding.padding_mask.sum())
    batch = {name: array[:, :count] for name, array in classifier.encode([text]).items()}
    read = attention_weights(classifier.backbone, batch)[-1].mean(0)[0]
    return word_weights((text,), encoding, 0, np.concatenate([read, np.zeros(classifier.sequence_length - count)]))


def orders(classifier, texts: list[str], seed: int) -> tuple[list[dict], float]:
    """Of each text its words in the order of each method; and the largest gap of a completeness, in log-odds."""
    found, gap, generator = [], 0.0, np.random.default_rng(seed)
    gradients = classifier.explain(texts)
    rollouts = classifier.explain(texts, method="attention_rollout")
    for text, by_gradient, by_rollout in zip(texts, gradients, rollouts, strict=True):
        total = sum(word.weight for word in by_gradient.words)
        gap = max(gap, abs(total - (by_gradient.score - by_gradient.baseline_score)))
        found.append(
            {
                "integrated_gradients": [by_weight(by_gradient.words)],
                "attention_rollout": [by_weight(by_rollout.words)],
                "last_attention": [by_weight(last_attention(classifier, text))],
                "random": [list(generator.permutation(by_gradient.words)) for _ in range(RANDOM_ORDERS)],
            }
        )
    return found, gap


def curves(classifier, texts: list[str], found: list[dict]) -> dict[str, np.ndarray]:
    """The probability of the label that the whole text gets, by method: float [texts, shares]."""
    labels = classifier.predict(texts, verbose=0).argmax(-1)
    drawn = {}
    for method in METHODS:
        rows = [
            (shortened(text, order), column)
            for text, one, column in zip(texts, found, labels, strict=True)
            for order in one[method]
        ]
        answers = classifier.predict([text for row, _ in rows for text in row], verbose=0)
        answers = answers.reshape(len(texts), -1, len(SHARES), answers.shape[-1]).mean(1)
        drawn[method] = np.stack([answer[:, column] for answer, column in zip(answers, labels, strict=True)])
    return drawn


def advantage(ours: np.ndarray, others: np.ndarray, seed: int = 0) -> dict:
    """How much smaller the area of ours is, mean over texts, and the 95 % interval of 2,000 bootstraps of the texts."""
    gaps = np.array([area(b) - area(a) for a, b in zip(ours, others, strict=True)])
    generator = np.random.default_rng(seed)
    means = gaps[generator.integers(0, len(gaps), (2000, len(gaps)))].mean(1)
    return {"mean": float(gaps.mean()), "interval": np.percentile(means, [2.5, 97.5]).tolist()}


def measured(classifier, texts: list[str], seed: int) -> dict:
    """Everything that the picture and the table show."""
    begun = time.process_time()
    found, gap = orders(classifier, texts, seed)
    drawn = curves(classifier, texts, found)
    ours, gaps = drawn["integrated_gradients"], {}
    for method in list(METHODS)[1:]:
        gaps[method] = {"integrated_gradients_is_lower_by": advantage(ours, drawn[method])}
    return {
        "texts": len(texts),
        "words": float(np.mean([len(one["random"][0]) for one in found])),
        "shares": SHARES,
        "largest_gap_of_completeness": gap,
        "methods": {
            method: {
                "probability": drawn[method].mean(0).tolist(),
                "area": area(drawn[method].mean(0)),
                **(
                    {}
                    if drawn[method] is ours
                    else {"integrated_gradients_is_lower_by": advantage(ours, drawn[method])}
                ),
            }
            for method in METHODS
        },
        "processor_seconds": time.process_time() - begun,
    }


def draw(results: dict, path: Path) -> None:
    drawn, (panel,) = figure(1, (7, 4.2))
    for (method, one), marker, colour in zip(
        results["methods"].items(), "osD^", ("#0072b2", "#d55e00", "#cc79a7", "#555555"), strict=True
    ):
        panel.plot(
            [100 * share for share in results["shares"]],
            one["probability"],
            marker=marker,
            color=colour,
            label=f"{METHODS[method]} (area {one['area']:.3f})",
        )
    panel.set(
        title=f"Words taken out of {results['texts']} test sentences, the largest weights first",
        xlabel="words taken out, % of the sentence",
        ylabel="probability of the sentence's label, mean",
        ylim=(0, 1),
    )
    panel.grid(alpha=0.3)
    panel.legend()
    save_figure(drawn, path)


def section(results: dict) -> str:
    """The table of the page."""
    rows = []
    for method, one in results["methods"].items():
        gap = one.get("integrated_gradients_is_lower_by")
        low, high = gap["interval"] if gap else (None, None)
        rows.append(
            [
                METHODS[method],
                f"{one['area']:.3f}",
                *(f"{value:.3f}" for value in one["probability"][1:]),
                "" if gap is None else f"{gap['mean']:.3f} ({low:.3f} to {high:.3f})",
            ]
        )
    header = [
        "words by",
        "area",
        *(f"{share:.0%} gone" for share in results["shares"][1:]),
        "integrated gradients is lower by",
    ]
    return (
        f"{report.markdown(header, rows)}\n\n"
        f"The probability of the label that the whole sentence gets, mean of {results['texts']} test sentences of "
        f"{results['words']:.0f} words, and the area under its curve: the lower, the better the words were chosen. In "
        f"brackets 95 % intervals by bootstraps of the sentences; random is the mean of {RANDOM_ORDERS} orders. The "
        f"classifier's accuracy is {results['accuracy']:.3f}; no sum of weights is further than "
        f"{results['largest_gap_of_completeness']:.4f} from what it should be, in log-odds. "
        f"`{results['command']}`, {results['processor_seconds']:.0f} s of the processor for the explanations, "
        f"{results['machine']}, {results['date']}.\n"
    )


def trained(quick: bool):
    """A classifier of the story, of one epoch and not pruned, and its accuracy on the test sentences."""
    split, settings = STORY.split(), dataclasses.replace(STORY.quick if quick else STORY.full, epochs=1)
    classifier = pipeline.load(TextClassifier, STORY.checkpoint(), split.labels, settings)
    count = settings.train_texts
    pipeline.fine_tune(classifier, split.train_texts[:count], split.train_labels[:count], settings, verbose=2)
    return classifier


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a folder that the story wrote; without it one is trained")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "sentiment-explained")
    parser.add_argument("--quick", action="store_true", help="fewer texts: to see it run, not to measure it")
    options = parser.parse_args(arguments)
    split, count = STORY.split(), 20 if options.quick else 200
    if options.model is None:
        classifier = trained(options.quick)
        classifier.save_pretrained(options.output)
    else:
        classifier = TextClassifier.from_pretrained(options.model)
    scored = split.test_texts[:count] if options.quick else split.test_texts
    answers = classifier.predict(scored, verbose=0).argmax(-1)
    pairs = zip(answers, split.test_labels[: len(scored)], strict=True)
    accuracy = np.mean([classifier.labels[answer] == label for answer, label in pairs])
    texts = [text for text in split.test_texts if len(text.split()) >= MINIMUM_WORDS][:count]
    results = {
        **measured(classifier, texts, seed=0),
        "accuracy": float(accuracy),
        "command": "python applications/sentiment/explain.py",
        "machine": f"{cores()} cores of {processor_name()}",
        "date": date.today().isoformat(),
    }
    print(section(results))
    if not options.quick:
        report.write_json(HERE / "deletion.json", results)
        draw(results, HERE / "deletion-curve.png")
        report.write_text(HERE / "EXPLANATIONS.md", PAGE.format(section=section(results), **results))
    return results


if __name__ == "__main__":
    main()
