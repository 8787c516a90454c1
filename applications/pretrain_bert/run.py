"""A small BERT pretrained from nothing on the Brown corpus, and what that is worth to a tagger with few examples.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/pretrain_bert/run.py [--quick]

WordPiece is learned from the training texts; BERT (the preset bert-tiny: 2 layers, 128 wide) fills hidden tokens and
says whether one segment follows another. Then it is fine-tuned to tag words, on few labelled sentences, and so is the
same model with random weights.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import keras
import numpy as np

import tfxformer
from tfxformer import samples, tasks
from tfxformer.files import replacing_folder
from tfxformer.recipes import pipeline, plots, report
from tfxformer.text import Tokenizer

HOME = Path(__file__).parent
MASKED = ("The [MASK] of the United States .", "He sat down in the [MASK] and looked at her .")


@dataclass(frozen=True)
class Settings:
    """The dials; rates are peaks after a warmup of a tenth, falling linearly to zero.

    Short rows: with 128 tokens the same model stays on the plateau of word frequencies for all of its steps, since each
    position has to be learned by itself. And wider initial weights than BERT's, for a model that is narrower.
    """

    model: str = "bert-tiny"
    initializer_range: float = 0.05
    vocabulary_size: int = 4000
    sequence_length: int = 32
    masking_rate: float = 0.25
    dropout: float = 0.0
    batch_size: int = 64
    epochs: int = 12
    learning_rate: float = 2e-3
    texts: int | None = None  # of 450, to pretrain on
    tagged_sentences: int = 500
    tagged_test_sentences: int = 2000
    tagging_epochs: int = 8
    tagging_rate: float = 3e-4
    seeds: int = 3


QUICK = replace(
    Settings(),
    epochs=1,
    texts=60,
    tagged_sentences=200,
    tagged_test_sentences=200,
    tagging_epochs=2,
    seeds=1,
)


def read_texts() -> tuple[list, list]:
    """The corpus by texts, each a list of sentences of (word, tag): nine tenths to learn from, every tenth held out."""
    texts = list(samples.brown().values())
    return [text for index, text in enumerate(texts) if index % 10], texts[::10]


def plain(texts) -> list[list[str]]:
    """Documents of sentences, without tags."""
    return [[" ".join(word for word, _ in sentence) for sentence in text] for text in texts]


def tag_of(tag: str) -> str:
    """A word's tag without its marks for headlines, titles and foreign words; of "I'm" that of its first part."""
    return re.split(r"[-+]", tag.removeprefix("fw-"))[0] or tag


def pretrain(train, held_out, settings: Settings, verbose) -> tuple[tasks.BertPretraining, dict]:
    """The model, and its history with the losses on held-out texts."""
    keras.utils.set_random_seed(0)
    documents = plain(train[: settings.texts])
    tokenizer = Tokenizer.train_word_piece([line for text in documents for line in text], settings.vocabulary_size)
    backbone = tfxformer.build(
        settings.model,
        vocabulary_size=tokenizer.vocabulary_size,
        initializer_range=settings.initializer_range,
        encoder__dropout=settings.dropout,
        encoder__attention_dropout=settings.dropout,
    )
    model = tasks.BertPretraining(
        backbone, tokenizer=tokenizer, sequence_length=settings.sequence_length, masking_rate=settings.masking_rate
    )
    model.compile(learning_rate=settings.learning_rate)
    history = model.fit(
        documents,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        validation_data=plain(held_out),
        verbose=verbose,
    )
    return model, pipeline.numbers(history)


def unigram_entropy(tokenizer: Tokenizer, train, held_out) -> float:
    """Nats a token of held-out text for the frequencies in the training texts: what no context is worth."""

    def counts(texts):
        rows = tokenizer.ids([line for text in plain(texts) for line in text], special_tokens=False)
        return np.bincount(np.concatenate([np.array(row, int) for row in rows]), minlength=tokenizer.vocabulary_size)

    learned, seen = counts(train) + 1.0, counts(held_out)
    return float(-(seen * np.log(learned / learned.sum())).sum() / seen.sum())


def tagged(texts, count: int) -> tuple[list, list]:
    """`count` sentences of 5 to 20 words, evenly spread over the texts: lists of words, and of their tags."""
    sentences = [sentence for text in texts for sentence in text if 4 < len(sentence) <= 20]
    chosen = [sentences[index] for index in np.linspace(0, len(sentences) - 1, count).astype(int)]
    return [[word for word, _ in one] for one in chosen], [[tag_of(tag) for _, tag in one] for one in chosen]


def most_frequent_tag_accuracy(words, tags, test_words, test_tags) -> float:
    """What the commonest tag of each known word, and the commonest of all, would score."""
    pairs = Counter((w.lower(), t) for row, of in zip(words, tags, strict=True) for w, t in zip(row, of, strict=True))
    best: dict = {}
    for (word, tag), _ in sorted(pairs.items(), key=lambda item: item[1]):
        best[word] = tag
    common = Counter(tag for row in tags for tag in row).most_common(1)[0][0]
    right = [
        best.get(word.lower(), common) == tag
        for row, of in zip(test_words, test_tags, strict=True)
        for word, tag in zip(row, of, strict=True)
    ]
    return float(np.mean(right))


def tagging_accuracy(folder: Path, pretrained: bool, train, test, labels, settings: Settings, seed: int) -> float:
    """The share of rightly tagged test words after fine-tuning, from the pretrained weights or from random ones."""
    keras.utils.set_random_seed(seed)
    tagger = tasks.TokenClassifier.from_pretrained(folder, labels=labels)
    if not pretrained:
        config = tagger.backbone.config
        tagger = tasks.TokenClassifier(tfxformer.build(config), labels=labels, tokenizer=tagger.tokenizer)
    tagger.compile(learning_rate=settings.tagging_rate)
    tagger.fit(*train, batch_size=16, epochs=settings.tagging_epochs, verbose=0)
    predicted = tagger.predict(test[0], batch_size=64, verbose=0)
    right = [a == b for one, other in zip(predicted, test[1], strict=True) for a, b in zip(one, other, strict=True)]
    return float(np.mean(right))


def run(settings: Settings, folder: Path, verbose) -> dict:
    """Pretrains, fine-tunes and measures; the pretrained model goes into `folder`."""
    start = time.perf_counter()
    train, held_out = read_texts()
    model, history = pretrain(train, held_out, settings, verbose)
    pretraining_seconds = time.perf_counter() - start
    model.save_pretrained(folder)
    fillings = {
        text: [[filling.token for filling in mask] for mask in masks]
        for text, masks in zip(MASKED, model.predict(list(MASKED), verbose=0), strict=True)
    }
    learned = tagged(train, settings.tagged_sentences)
    test = tagged(held_out, settings.tagged_test_sentences)
    labels = sorted({tag for _, texts in (("", learned[1]), ("", test[1])) for row in texts for tag in row})
    scores = {
        name: [
            tagging_accuracy(folder, from_it, learned, test, labels, settings, seed) for seed in range(settings.seeds)
        ]
        for name, from_it in (("pretrained", True), ("random", False))
    }
    return {
        "date": date.today().isoformat(),
        "seconds": time.perf_counter() - start,
        "pretraining_seconds": pretraining_seconds,
        "parameters": model.count_params(),
        "settings": asdict(settings),
        "machine": pipeline.machine(),
        "unigram_entropy": unigram_entropy(model.tokenizer, train[: settings.texts], held_out),
        "fillings": fillings,
        "tagging": {**scores, "most_frequent_tag": most_frequent_tag_accuracy(*learned, *test), "tags": len(labels)},
        "history": {"pretraining": history},
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    settings, history, tagging = results["settings"], results["history"]["pretraining"], results["tagging"]
    shown = sorted({0, *range(1, settings["epochs"], 2), settings["epochs"] - 1})
    columns = ("tokens_loss", "val_tokens_loss", "val_tokens_masked_accuracy", "val_sentences_accuracy")
    rows = [[str(epoch + 1), *(f"{history[name][epoch]:.3f}" for name in columns)] for epoch in shown]
    losses = report.markdown(
        ["epoch", "loss on hidden tokens", "held out", "held-out tokens right", "held-out next sentences right"], rows
    )
    scores = [
        ["commonest tag of each word", f"{tagging['most_frequent_tag']:.3f}", ""],
        *(
            [f"{name} weights", f"{np.mean(tagging[name]):.3f}", " ".join(f"{one:.3f}" for one in tagging[name])]
            for name in ("random", "pretrained")
        ),
    ]
    machine, filled = (
        results["machine"],
        "\n".join(
            f"- {text} {' / '.join(', '.join(words) for words in masks)}" for text, masks in results["fillings"].items()
        ),
    )
    return f"""**Pretraining**: {results["parameters"]:,} parameters, {settings["epochs"]} epochs, nats a token

{losses}

Without any context the held-out tokens cost {results["unigram_entropy"]:.3f} nats (their frequencies in the training
texts).

**Tagging** with {tagging["tags"]} tags, learned from {settings["tagged_sentences"]} sentences, on
{settings["tagged_test_sentences"]:,} sentences of held-out texts

{report.markdown(["tagger", "words right", "by seed"], scores)}

Masks filled:

{filled}

Pretraining took {results["pretraining_seconds"]:.0f} s, the whole run {results["seconds"]:.0f} s, on
{machine["cores"]} cores of {machine["processor"]}, on {results["date"]}.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer texts: to see it run, not to measure it")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "pretrain-bert")
    options = parser.parse_args()
    settings = QUICK if options.quick else Settings()
    with replacing_folder(options.output) as folder:
        results = run(settings, folder, 1 if sys.stdout.isatty() else 2)
        report.write_json(folder / "results.json", results)
        plots.training_curve(results["history"], folder / "training-curve.png")
    print(section(results))
    if not options.quick:
        report.update_section(HOME / "RESULTS.md", section(results))


if __name__ == "__main__":
    main()
