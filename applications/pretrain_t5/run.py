"""A small T5 pretrained from nothing on the Bible, letter by letter, and what that is worth where examples are few.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/pretrain_t5/run.py [--quick]

A T5 writes the letters that are missing in running text, whose spans sentinels stand for. Then it learns from pairs to
restore a worn line, where one mark stands for letters that are gone, and so does the same model with random weights.
The pretrained model is kept in the output folder: a run that was ended goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import keras
import numpy as np

import tfxformer
from tfxformer import samples, tasks
from tfxformer.data.text_scores import text_scores
from tfxformer.recipes import kept_training, pipeline, report
from tfxformer.text import Tokenizer

HOME = Path(__file__).parent
# Chosen before anything was trained, as in applications/translate: no book that another one tells again.
HELD_OUT = ("Ruth", "Esth", "Eccl", "Hos", "Jonah", "Phil", "Jas", "1Pet")
KEPT_APART = 20  # of the other books every 20th verse is left out of pretraining: the pairs are made of them
END, SENTINEL, GAP = "</s>", "<extra_id_{}>", "_"
SHOWN = 8  # worn lines of the table of examples


@dataclass(frozen=True)
class Settings:
    """The dials; rates are peaks after a warmup of a tenth, falling linearly to zero.

    Attributes:
        sentinels: int, more than a row of this length has spans.
        worn: int, letters that a mark stands for in the pairs.
        window: int, characters of a line.
    """

    model: str = "t5-small"  # made smaller
    encoder_layers: int = 2
    decoder_layers: int = 1
    width: int = 64
    heads: int = 4
    feed_forward: int = 256
    sentinels: int = 16
    sequence_length: int = 48
    corruption_rate: float = 0.3
    mean_span: float = 3.0
    batch_size: int = 32
    epochs: int = 4
    learning_rate: float = 3e-3
    save_every: int = 500  # steps
    books: int | None = None  # to pretrain on; None for all
    worn: int = 3
    window: int = 44
    pairs: int = 1000
    test_pairs: int = 1000
    pair_epochs: int = 20
    pair_rate: float = 2e-3
    seeds: int = 3
    seed: int = 0


QUICK = replace(Settings(), epochs=1, books=1, pairs=64, test_pairs=32, pair_epochs=1, seeds=1)


# ---- texts ---------------------------------------------------------------------------------------------------------


def split(settings: Settings) -> tuple[list[str], list[str], list[str]]:
    """(texts to pretrain on, a book each; verses that pairs are made of; verses of held-out books)."""
    books = {name: [english for english, _ in pairs] for name, pairs in samples.bible_en_es().items()}
    others = [verses for name, verses in books.items() if name not in HELD_OUT]
    learned = [" ".join(verse for index, verse in enumerate(book) if index % KEPT_APART) for book in others]
    apart = [verse for book in others for verse in book[::KEPT_APART]]
    return learned[: settings.books], apart, [verse for name in HELD_OUT for verse in books[name]]


def worn_lines(verses: list[str], count: int, settings: Settings) -> list[tuple[str, str]]:
    """`count` lines with a mark for letters that are gone, and the letters; no verse twice before all had a turn."""
    drawn, length = random.Random(settings.seed), settings.worn
    letters = re.compile(rf"(?=[a-z]{{{length}}})")
    places = [(verse, [found.start() for found in letters.finditer(verse)]) for verse in verses]
    places = [(verse, found) for verse, found in places if found]
    drawn.shuffle(places)
    lines = []
    for index in range(count):
        verse, found = places[index % len(places)]
        place = drawn.choice(found)
        begin = max(0, min(place - settings.window // 2, len(verse) - settings.window))
        line = verse[begin : begin + settings.window]
        at = place - begin
        lines.append((line[:at] + GAP + line[at + length :], line[at : at + length]))
    return lines


# ---- pretraining ---------------------------------------------------------------------------------------------------


def make_model(learned: list[str], settings: Settings) -> tasks.DenoisingLM:
    """The preset, made smaller, with random weights and the characters of the texts as its vocabulary."""
    keras.utils.set_random_seed(settings.seed)
    special = (END, GAP, *(SENTINEL.format(index) for index in range(settings.sentinels)))
    tokenizer = Tokenizer.characters("".join(learned), special)
    sizes = {
        "hidden_size": settings.width,
        "attention__heads": settings.heads,
        "attention__width": settings.width // settings.heads,
        "feed_forward__size": settings.feed_forward,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
    backbone = tfxformer.build(
        settings.model,
        vocabulary_size=tokenizer.vocabulary_size,
        encoder__num_layers=settings.encoder_layers,
        decoder__num_layers=settings.decoder_layers,
        heads__logit_scale=settings.width**-0.5,
        **{f"{stack}__{name}": value for stack in ("encoder", "decoder") for name, value in sizes.items()},
    )
    return tasks.DenoisingLM(
        backbone,
        tokenizer=tokenizer,
        corruption_rate=settings.corruption_rate,
        mean_span=settings.mean_span,
        sequence_length=settings.sequence_length,
    )


def pretrain(learned: list[str], held_out: list[str], folder: Path, settings: Settings, verbose) -> dict:
    """Trains, keeps the model in `folder`, and beside it its history and how long it took."""
    model = make_model(learned, settings)
    model.compile(learning_rate=settings.learning_rate)
    return kept_training.fit(
        model,
        learned,
        folder=folder,
        settings=settings,
        save_every=settings.save_every,
        facts={
            "text_length": model.text_length,
            "characters": sum(map(len, learned)),
            "unigram_entropy": unigram_entropy(model, learned, held_out),
        },
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        validation_data=held_out,
        verbose=verbose,
    )


def unigram_entropy(model: tasks.DenoisingLM, learned, held_out) -> float:
    """Nats a token of held-out targets for the frequencies in those of the learned texts: what no source is worth."""

    def counts(texts):
        rows = model.hidden_rows(texts, fitting=False)
        _, targets, weights = model.hidden_batch(rows, np.random.default_rng(0))
        return np.bincount(targets[weights > 0], minlength=model.tokenizer.vocabulary_size)

    learned, seen = counts(learned) + 1.0, counts(held_out)
    return float(-(seen * np.log(learned / learned.sum())).sum() / seen.sum())


# ---- few pairs -----------------------------------------------------------------------------------------------------


def restored(folder: Path, pretrained: bool, pairs, test, settings: Settings, seed: int) -> dict:
    """What a model makes of held-out lines after fine-tuning, from the pretrained weights or from random ones."""
    keras.utils.set_random_seed(seed)
    lengths = {"sequence_length": settings.sequence_length, "target_length": settings.worn + 1}
    model = tasks.Seq2SeqLM.from_pretrained(folder / kept_training.MODEL, **lengths)
    if not pretrained:
        again = tfxformer.build(model.backbone.config)
        model = tasks.Seq2SeqLM(again, tokenizer=model.tokenizer, **lengths)
    model.compile(learning_rate=settings.pair_rate)
    history = model.fit(
        *columns(pairs),
        batch_size=settings.batch_size,
        epochs=settings.pair_epochs,
        validation_data=columns(test),
        verbose=0,
    )
    written = model.generate(columns(test)[0], max_new_tokens=settings.worn + 1, batch_size=100)
    losses = pipeline.numbers(history)
    # Of the epochs the best one: a model that has learned its pairs by heart is not to lose by that.
    return {**scores(written, test), "loss": min(losses["val_loss"]), "losses": losses["val_loss"], "written": written}


def columns(pairs) -> tuple[list[str], list[str]]:
    """Sources and targets."""
    sources, targets = (list(column) for column in zip(*pairs, strict=True))
    return sources, targets


def scores(written: list[str], test) -> dict:
    """chrF from 0 to 100, and the share of gaps that are wholly right."""
    wanted = columns(test)[1]
    right = np.mean([one == other for one, other in zip(written, wanted, strict=True)])
    return {"chrf": text_scores(written, wanted, ("chrf",))["chrf"], "right": float(right)}


def baseline(pairs, test) -> dict:
    """The scores of the commonest letters of the pairs, whatever stands around the gap."""
    ((commonest, _),) = Counter(columns(pairs)[1]).most_common(1)
    return {**scores([commonest] * len(test), test), "letters": commonest}


# ---- the whole -----------------------------------------------------------------------------------------------------


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Pretrains, unless the folder holds what these settings gave, fine-tunes both models and measures."""
    learned, apart, held_out = split(settings)
    trained = kept_training.kept(folder, settings) or pretrain(learned, held_out, folder, settings, verbose)
    pairs, test = (
        worn_lines(verses, count, settings)
        for verses, count in ((apart, settings.pairs), (held_out, settings.test_pairs))
    )
    found = {
        name: [restored(folder, from_it, pairs, test, settings, seed) for seed in range(settings.seeds)]
        for name, from_it in (("random", False), ("pretrained", True))
    }
    shown = [
        {"line": line, "wanted": wanted, **{name: several[0]["written"][index] for name, several in found.items()}}
        for index, (line, wanted) in enumerate(test[:SHOWN])
    ]
    for one in (one for several in found.values() for one in several):
        del one["written"]
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "pretraining": trained,
        "restoring": {**found, "commonest": baseline(pairs, test)},
        "shown": shown,
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    trained, restoring, machine = results["pretraining"], results["restoring"], results["machine"]
    dials, history, commonest = trained["settings"], trained["history"], restoring["commonest"]
    losses = report.markdown(
        ["epoch", "loss on missing letters", "held out"],
        [
            [str(epoch + 1), *(f"{history[name][epoch]:.3f}" for name in ("loss", "val_loss"))]
            for epoch in range(dials["epochs"])
        ],
    )
    rows = [[f'always "{commonest["letters"]}"', "", f"{commonest['chrf']:.1f}", f"{commonest['right']:.3f}", ""]]
    for name in ("random", "pretrained"):
        several = restoring[name]
        means = {score: np.mean([one[score] for one in several]) for score in ("loss", "chrf", "right")}
        by_seed = " ".join(f"{one['loss']:.3f}/{one['chrf']:.1f}" for one in several)
        rows.append(
            [f"{name} weights", f"{means['loss']:.3f}", f"{means['chrf']:.1f}", f"{means['right']:.3f}", by_seed]
        )
    table = report.markdown(["model", "held-out loss", "chrF", "gaps wholly right", "loss/chrF by seed"], rows)
    lines = report.markdown(
        ["line", "wanted", "random", "pretrained"],
        [[f"`{one[name]}`" for name in ("line", "wanted", "random", "pretrained")] for one in results["shown"]],
    )
    return f"""**Pretraining**: {trained["parameters"]:,} parameters, {trained["characters"]:,} characters in pieces of
{trained["text_length"]}, which become sources of {dials["sequence_length"]}; nats a token of the targets, sentinels and
ends among them

{losses}

Without a source the held-out targets cost {trained["unigram_entropy"]:.3f} nats (their tokens' frequencies in the
learned texts).

**Worn lines**: {dials["worn"]} letters are gone in each; {dials["pairs"]:,} pairs to learn from, of verses that
pretraining did not see, {dials["test_pairs"]:,} of the held-out books ({", ".join(HELD_OUT)}) to measure by.
Both models learn {dials["pair_epochs"]} epochs alike; the loss (nats a token) is that of the best of them, which is
kind to a model that learns its pairs by heart, the rest is of the last

{table}

{lines}

Pretraining took {trained["seconds"]:.0f} s on {machine["cores"]} cores of {machine["processor"]}, which had other work
too, on {results["date"]}.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one book, few pairs: to see it run, not to measure it")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "pretrain-t5")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    folder.mkdir(parents=True, exist_ok=True)
    results = run(folder, QUICK if options.quick else Settings(), verbose="auto")
    report.keep_results(results, section(results), folder, None if options.quick else HOME)


if __name__ == "__main__":
    main()
