"""The Transformer of 2017, small, learns from nothing to translate the Bible from English into Spanish.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/translate/run.py [--quick] [--text TEXT ...]

What was trained is kept in the output folder: a run that was ended goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from baselines import copied, nearest, word_for_word

import tfxformer
from tfxformer import samples, tasks, training
from tfxformer.data.text_scores import text_scores
from tfxformer.generation import Beams
from tfxformer.recipes import kept_training, pipeline, report
from tfxformer.text import Tokenizer

HOME = Path(__file__).parent
# Chosen before anything was trained: of each kind of writing something, and none that another book tells again, as
# the gospels, Kings and Chronicles do.
HELD_OUT = ("Ruth", "Esth", "Eccl", "Hos", "Jonah", "Phil", "Jas", "1Pet")
END, END_ID = "</s>", 0  # begins, ends and pads
SCORES, BEAMS = ("bleu", "chrf"), 4
SHOWN = 6  # verses of the table of examples


@dataclass(frozen=True)
class Settings:
    """The dials; the split is none: by book.

    Attributes:
        layers: int, of the encoder and of the decoder; the preset has 3, the paper 6.
        lengths: batches are padded to the least of these that holds both sides; longer verses are not learned.
        learning_rate: float, the highest, of an inverse-square-root schedule.
        average: float, how much of the moving average of the weights stays at each step.
    """

    layers: int = 2
    vocabulary_size: int = 4000  # of both languages together
    lengths: tuple[int, ...] = (24, 32, 40, 48, 64)
    batch_size: int = 48
    epochs: int = 6
    learning_rate: float = 1.2e-3
    warmup: int = 500  # steps
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    average: float = 0.998
    new_tokens: int = 100
    scored: int | None = None  # held-out verses; None for all
    save_every: int = 400  # steps
    seed: int = 0


QUICK = replace(Settings(), lengths=(24,), epochs=1, warmup=20, scored=32, new_tokens=32)


def split(settings: Settings) -> tuple[list, list]:
    """(English, Spanish) verses to learn and held-out ones."""
    books = samples.bible_en_es()
    parts = ([pair for book, pairs in books.items() if (book in HELD_OUT) == held for pair in pairs] for held in (0, 1))
    learned, held_out = parts
    return learned, held_out[: settings.scored]


def make_model(pairs: list, settings: Settings) -> tasks.Seq2SeqLM:
    """The preset with random weights and one vocabulary of both languages."""
    keras.utils.set_random_seed(settings.seed)
    texts = [text for pair in pairs for text in pair]
    tokenizer = Tokenizer.train_byte_level_bpe(texts, settings.vocabulary_size, (END,))
    backbone = tfxformer.build(
        "transformer-mini",
        vocabulary_size=tokenizer.vocabulary_size,
        padding_id=tokenizer.padding_id,
        dtype="mixed_bfloat16",
        encoder__num_layers=settings.layers,
        decoder__num_layers=settings.layers,
    )
    return tasks.Seq2SeqLM(backbone, tokenizer=tokenizer, label_smoothing=settings.label_smoothing)


def batches(model, pairs: list, settings: Settings) -> training.Epochs:
    """Batches of verses of about one length, in another order each epoch.

    One length for all would be a third of padding.
    """
    parts, size = encoded(model, pairs, settings.lengths), settings.batch_size
    counts = [len(part["targets"]) // size for part in parts]

    def places(epoch: int, first: int):
        rng = np.random.default_rng(settings.seed)
        for _ in range(epoch + 1):  # of these the last one counts
            orders = [rng.permutation(len(part["targets"])) for part in parts]
            begins = [(index, size * batch) for index, count in enumerate(counts) for batch in range(count)]
            begins = [begins[place] for place in rng.permutation(len(begins))]
        for index, begin in begins[first:]:
            batch = {name: array[orders[index][begin : begin + size]] for name, array in parts[index].items()}
            targets = batch.pop("targets")
            yield batch, targets, batch["decoder_padding_mask"].astype("float32")

    one = tf.TensorSpec((size, None), tf.int32)
    names = [name for name in parts[0] if name != "targets"]
    signature = (dict.fromkeys(names, one), one, tf.TensorSpec((size, None), tf.float32))

    def make(epoch: int, first: int) -> tf.data.Dataset:
        return tf.data.Dataset.from_generator(lambda: places(epoch, first), output_signature=signature)

    return training.Epochs(make, sum(counts))


def encoded(model, pairs: list, lengths: tuple[int, ...]) -> list[dict]:
    """The pairs as arrays, those of each length together; "targets" is what is written behind the decoder's tokens."""
    counts = np.maximum(*(model.tokenizer.token_counts(list(side)) for side in zip(*pairs, strict=True))) + 1
    parts = []
    for shortest, longest in zip((0, *lengths), lengths, strict=False):
        held = [pairs[index] for index in np.flatnonzero((counts > shortest) & (counts <= longest))]
        part = model.encode(*map(list, zip(*held, strict=True)), sequence_length=longest, target_length=longest)
        # Behind each token comes the decoder's next one; behind the last the end, which pads too.
        part["targets"] = np.pad(part["decoder_token_ids"][:, 1:], ((0, 0), (0, 1)), constant_values=END_ID)
        parts.append(part)
    return parts


def train(pairs: list, folder: Path, settings: Settings, verbose) -> dict:
    """Trains, keeps the model in `folder`, and beside it how long it took."""
    model = make_model(pairs, settings)
    dataset = batches(model, pairs, settings)
    steps = dataset.num_batches
    # It does not depend on the steps to come: a training may be gone on with for more epochs.
    rate = training.WarmupInverseSqrt(settings.learning_rate, settings.warmup, warmup=settings.warmup)
    # The paper averages its last checkpoints; the moving average is that without the files.
    optimizer = training.AdamW(
        rate,
        settings.weight_decay,
        beta_2=0.98,
        epsilon=1e-9,
        global_clipnorm=1.0,
        use_ema=True,
        ema_momentum=settings.average,
    )
    model.compile(optimizer)
    return kept_training.fit(
        model,
        dataset,
        folder=folder,
        settings=settings,
        save_every=settings.save_every,
        facts={"steps": steps * settings.epochs, "pairs": steps * settings.batch_size},
        epochs=settings.epochs,
        verbose=verbose,
    )


def measure(folder: Path, learned: list, held_out: list, settings: Settings) -> dict:
    """BLEU and chrF of the three baselines and of the model, greedily and by beams."""
    sources, wanted = map(list, zip(*held_out, strict=True))
    model = tasks.Seq2SeqLM.from_pretrained(folder / kept_training.MODEL)
    ways = {
        "the source itself": lambda: copied(sources),
        "nearest learned verse": lambda: nearest(learned, sources),
        "word for word": lambda: word_for_word(learned, sources),
        "greedy": lambda: translate(model, sources, settings.new_tokens),
        "beams": lambda: translate(model, sources, settings.new_tokens, Beams(BEAMS)),
    }
    variants = {}
    for name, way in ways.items():
        start = time.perf_counter()
        written = way()
        variants[name] = {**text_scores(written, wanted, SCORES), "seconds": time.perf_counter() - start}
    shown = [
        {"english": english, "spanish": spanish, "model": text}
        for (english, spanish), text in list(zip(held_out, written, strict=True))[:: max(1, len(held_out) // SHOWN)]
    ]
    return {"variants": variants, "shown": shown[:SHOWN]}


def translate(model, sources: list[str], new_tokens: int, sampler=None) -> list[str]:
    return model.generate(sources, new_tokens, sampler=sampler, batch_size=64, verbose="auto")


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Trains, unless the folder holds what these settings gave, and measures."""
    learned, held_out = split(settings)
    trained = kept_training.kept(folder, settings) or train(learned, folder, settings, verbose)
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "data": {"learned": len(learned), "held_out": len(held_out), "held_out_books": HELD_OUT},
        "training": trained,
        **measure(folder, learned, held_out, settings),
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    trained, variants, machine = results["training"], results["variants"], results["machine"]
    dials, data = trained["settings"], results["data"]
    labels = {"greedy": "the Transformer, greedily", "beams": f"the Transformer, {BEAMS} beams"}
    rows = [
        [labels.get(name, name), f"{one['bleu']:.1f}", f"{one['chrf']:.1f}", f"{one['seconds']:.0f}"]
        for name, one in variants.items()
    ]
    said = "\n".join(
        f"- {one['english']}\n  - wanted: {one['spanish']}\n  - written: {one['model']}" for one in results["shown"]
    )
    return f"""{report.markdown(["", "BLEU", "chrF", "s"], rows)}

BLEU and chrF are sacrebleu's with its defaults, capitals and all; {data["held_out"]:,} verses of books that no verse
was learned of ({", ".join(data["held_out_books"])}), {trained["pairs"]:,} of the other {data["learned"]:,} learned
(the longest are left out). {trained["parameters"]:,} parameters, {dials["layers"]} + {dials["layers"]} layers,
{dials["vocabulary_size"]:,} tokens of both languages; {dials["epochs"]} epochs, {trained["steps"]:,} steps of
{dials["batch_size"]} pairs, in {trained["seconds"]:.0f} s, while other programs ran beside; the weights are a moving
average. {machine["cores"]} cores of {machine["processor"]}, {results["date"]}.

Verses from all over the held-out books:

{said}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few verses: to see it run, not to measure it")
    parser.add_argument("--text", nargs="+", help="translate these, once the model is there")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "translate")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    if not (options.text and (folder / kept_training.MODEL).is_dir()):
        folder.mkdir(parents=True, exist_ok=True)
        settings = QUICK if options.quick else Settings()
        results = run(folder, settings, verbose="auto")
        report.keep_results(results, section(results), folder, None if options.quick else HOME)
    if options.text:
        model = tasks.Seq2SeqLM.from_pretrained(folder / kept_training.MODEL)
        print("\n".join(translate(model, options.text, Settings().new_tokens, Beams(BEAMS))))


if __name__ == "__main__":
    main()
