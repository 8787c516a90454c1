"""The results of the story as a page and as a picture."""

from __future__ import annotations

from tfxformer.figures import GREEN, bars, figure
from tfxformer.recipes import report

NAMES = {
    "longest known words": "longest known words",
    "random fields": "conditional random fields",
    "counted characters": "TF-IDF of characters",
    "random": "BERT, random weights",
    "pretrained": "BERT, pretrained",
    "litert": "the int8 file of the pretrained one",
}


def drawn(results: dict):
    """F1 of words and of names, and the accuracy of reviews, as bars."""
    picture, panels = figure(3, (14, 3.2))
    picture.suptitle("Scores on the test texts (more is better)")
    for panel, part, score, title in zip(
        panels,
        ("words", "words", "reviews"),
        ("words_f1", "names_f1", "accuracy"),
        ("words, F1", "names, F1", "reviews, accuracy"),
        strict=True,
    ):
        variants = results[part]["variants"]
        bars(panel, [NAMES[name] for name in variants], [one[score] for one in variants.values()], form="{:.3f}",
             color=GREEN)  # fmt: skip
        panel.set(xlabel=title, xlim=(0, 1.3), xticks=(0, 0.5, 1))
    return picture


def words_table(words: dict) -> str:
    kinds = list(next(iter(words["variants"].values()))["names_by_kind"])
    rows = [
        [
            NAMES[name],
            *(f"{one[score]:.3f}" for score in ("words_f1", "unknown_words_found", "names_f1")),
            *(f"{one['names_by_kind'].get(kind, 0.0):.3f}" for kind in kinds),
            f"{one['processor_seconds']:.0f}",
        ]
        for name, one in words["variants"].items()
    ]
    return report.markdown(["", "words, F1", "unknown words found", "names, F1", *kinds, "s of the processor"], rows)


def reviews_table(reviews: dict) -> str:
    rows = [
        [NAMES[name], f"{one['accuracy']:.3f}", f"{one['macro_f1']:.3f}", f"{one['processor_seconds']:.0f}"]
        for name, one in reviews["variants"].items()
    ]
    return report.markdown(["", "accuracy", "macro F1", "s of the processor"], rows)


def training_table(training: dict) -> str:
    rows = []
    for name, one in training.items():
        dials, losses = one["settings"].get("tuning", one["settings"]), one["history"]["loss"]
        examples = one.get("examples", one.get("rows"))
        cells = [f"{losses[0]:.3f} to {losses[-1]:.3f}", f"{one['seconds']:.0f}", f"{one['processor_seconds']:.0f}"]
        rows.append([name, f"{examples:,}", str(dials["epochs"]), *cells])
    return report.markdown(["training", "texts", "epochs", "loss", "s", "s of the processor"], rows)


def section(results: dict) -> str:
    """The results as Markdown."""
    words, reviews, training, machine = (results[name] for name in ("words", "reviews", "training", "machine"))
    first = training["pretraining"]
    dials = first["settings"]
    unknown = next(iter(words["variants"].values()))
    shown = "\n".join(
        f"- {one['text']}\n  - fields: {one['random fields']}\n  - file: {one['litert']}" for one in words["shown"]
    )
    filled = "\n".join(f"- {text}: {', '.join(found)}" for text, found in results["fillings"].items())
    return f"""**Words and names**, on {words["sentences"]:,} parts ({words["characters"]:,} characters) of the last
days

{words_table(words)}

Learned from {words["learned_characters"]:,} characters with labels. {unknown["unknown_words"]:.1%} of the words are
none of these, {unknown["names"]:,} names are to be found. F1 of words counts those whose both ends are right, F1 of
names as `seqeval` does. The time is that of reading, for the fields with their training. The file
({words["bytes"] / 1e6:.1f} MB) gives {words["same_labels"]:.2%} of the characters the label that Keras gives, and
{words["same_sentences"]:.1%} of the parts the same labels throughout; its logits are {words["relative_error"]:.2g}
from Keras' (relative).

**Reviews**, for or against: {reviews["learned"]:,} to learn, {reviews["test"]:,} to test

{reviews_table(reviews)}

The file ({reviews["bytes"] / 1e6:.1f} MB) says what Keras says of {reviews["same_labels"]:.2%} of them.

**Training**: {first["parameters"]:,} parameters, {dials["layers"]} layers, {dials["width"]} wide; pretrained on
{first["characters"]:,} characters without labels

{training_table(training)}

Masks filled:

{filled}

Words, with the kinds of names, by the random fields and by the file:

{shown}

{machine["cores"]} cores of {machine["processor"]}, which had other work too, {results["date"]}.
"""
