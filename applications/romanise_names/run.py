"""Arabic and Persian names into Latin letters: a small encoder-decoder learned from nothing, and its int8 file.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/romanise_names/run.py [--quick] [--names NAME ...]

What was trained is kept in the output folder: a run that was ended goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import keras
from rich.progress import track

import tfxformer
from tfxformer import export, samples, tasks, training
from tfxformer.recipes import kept_training, pipeline, report
from tfxformer.text import Tokenizer

HOME = Path(__file__).parent
FILE = "romanise-names-int8.tflite"
HELD_OUT = 2_000
END = "</s>"  # begins, ends and pads
SHOWN = 12  # names of the table of examples

# One letter for each, what a reader knows without learning: the vowels that Arabic does not write are missing.
LETTERS = {
    **{"ا": "a", "أ": "a", "إ": "i", "آ": "a", "ٱ": "a", "ء": "", "ؤ": "u", "ئ": "i", "ى": "a", "ة": "a"},
    **{"ب": "b", "پ": "p", "ت": "t", "ث": "th", "ج": "j", "چ": "ch", "ح": "h", "خ": "kh", "د": "d", "ذ": "dh"},
    **{"ر": "r", "ز": "z", "ژ": "zh", "س": "s", "ش": "sh", "ص": "s", "ض": "d", "ط": "t", "ظ": "z", "ع": "a"},
    **{"غ": "gh", "ف": "f", "ق": "q", "ک": "k", "ك": "k", "گ": "g", "ل": "l", "م": "m", "ن": "n", "ه": "h"},
    **{"ھ": "h", "ہ": "h", "و": "u", "ي": "i", "ی": "i", "ے": "e", "ں": "n", "ڤ": "v", "ٹ": "t", "ڈ": "d", "ڑ": "r"},
}


@dataclass(frozen=True)
class Settings:
    """The dials; the split is none: 2,000 names by seed 0.

    Attributes:
        longest: int, letters of a name or a spelling that is learned; all held-out ones count, however long.
        learning_rate: float, the highest, falling along a cosine.
    """

    layers: int = 2
    width: int = 192
    heads: int = 4
    longest: int = 15
    batch_size: int = 64
    epochs: int = 4
    learning_rate: float = 1.2e-3
    warmup: int = 400  # steps
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    held_out: int = 2_000
    save_every: int = 400  # steps
    seed: int = 0


QUICK = replace(Settings(), epochs=1, longest=6, held_out=100, warmup=40)


class Name(NamedTuple):
    """A name: its attested spellings, where it is attested most often, and the most frequent spelling there.

    Spellings stand with the most frequent one first; equals by letters.
    """

    text: str
    spellings: list[str]
    country: str
    spelling_there: str

    def source(self, with_country: bool) -> str:
        return f"{self.country} {self.text}" if with_country else self.text


def most_frequent(counts: Mapping[str, int]) -> list[str]:
    return sorted(counts, key=lambda one: (-counts[one], one))


def read_name(text: str, countries: dict) -> Name:
    spellings = Counter()
    for counts in countries.values():
        spellings.update(counts)
    country = most_frequent({country: sum(counts.values()) for country, counts in countries.items()})[0]
    return Name(text, most_frequent(spellings), country, most_frequent(countries[country])[0])


def split(settings: Settings) -> tuple[list[tuple[str, str]], list[Name]]:
    """Pairs to learn, and held-out names.

    A name is learned with its most frequent spelling, and behind each of its countries with the one of that country.
    """
    names = samples.arabic_names()
    order = sorted(names)
    random.Random(0).shuffle(order)
    held_out, learned = order[:HELD_OUT], order[HELD_OUT:]
    pairs = []
    for text in learned:
        pairs.append((text, read_name(text, names[text]).spellings[0]))
        for country, counts in names[text].items():
            pairs.append((f"{country} {text}", most_frequent(counts)[0]))
    longest = settings.longest
    fits = [pair for pair in pairs if len(pair[0].split(" ", 1)[-1]) <= longest and len(pair[1]) <= longest]
    return fits, [read_name(text, names[text]) for text in held_out[: settings.held_out]]


def make_model(pairs: list, settings: Settings) -> tasks.Seq2SeqLM:
    """The Transformer of 2017, small, over characters."""
    keras.utils.set_random_seed(settings.seed)
    tokenizer = Tokenizer.characters("".join(map("".join, pairs)), (END,))
    dials = {
        "num_layers": settings.layers,
        "hidden_size": settings.width,
        "attention__heads": settings.heads,
        "feed_forward__size": 4 * settings.width,
        "embedding_scale": settings.width**0.5,
    }
    backbone = tfxformer.build(
        "transformer-mini",
        vocabulary_size=tokenizer.vocabulary_size,
        padding_id=tokenizer.padding_id,
        dtype="mixed_bfloat16",
        **{f"{stack}__{dial}": value for stack in ("encoder", "decoder") for dial, value in dials.items()},
    )
    return tasks.Seq2SeqLM(
        backbone,
        tokenizer=tokenizer,
        label_smoothing=settings.label_smoothing,
        sequence_length=settings.longest + len("DZ "),
        target_length=settings.longest + 1,
    )


def train(pairs: list, folder: Path, settings: Settings, verbose) -> dict:
    """Trains, keeps the model in `folder`, and beside it how long it took."""
    model = make_model(pairs, settings)
    steps = -(-len(pairs) // settings.batch_size) * settings.epochs
    rate = training.WarmupCosine(settings.learning_rate, steps, warmup=settings.warmup)
    model.compile(training.AdamW(rate, settings.weight_decay, global_clipnorm=1.0))
    return kept_training.fit(
        model,
        *map(list, zip(*pairs, strict=True)),
        folder=folder,
        settings=settings,
        save_every=settings.save_every,
        facts={"vocabulary_size": model.tokenizer.vocabulary_size},
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        verbose=verbose,
    )


def distance(one: str, other: str) -> int:
    """The least insertions, deletions and replacements of letters (Levenshtein, 1966)."""
    row = list(range(len(other) + 1))
    for count, letter in enumerate(one, 1):
        before, row[0] = row[0], count
        for index, wanted in enumerate(other, 1):
            before, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, before + (letter != wanted))
    return row[-1]


def scores(written: list[str], names: list[Name], with_country: bool) -> dict:
    """Of what was written for names: the share that is an attested spelling, and the character error rates.

    A rate is the letters to change over the letters wanted, of all names together; against the attested spelling that
    is nearest to what was written, and against the most frequent one (that of the country, where it was told).
    """
    pairs = list(zip(written, names, strict=True))
    nearest = [min(name.spellings, key=lambda one: (distance(text, one), one)) for text, name in pairs]
    first = [name.spelling_there if with_country else name.spellings[0] for name in names]
    rates = [sum(map(distance, written, wanted)) / sum(map(len, wanted)) for wanted in (nearest, first)]
    exact = sum(text in name.spellings for text, name in pairs) / len(pairs)
    return {"cer_nearest": rates[0], "cer_most_frequent": rates[1], "exact": exact}


def by_letters(name: str) -> str:
    """A name by the table alone, its words beginning with capitals."""
    return " ".join("".join(LETTERS.get(letter, "") for letter in word).capitalize() for word in name.split())


def measure(folder: Path, names: list[Name]) -> dict:
    """The scores of the table, of Keras in float32, and of an int8 file that writes the same names."""
    model = tasks.Seq2SeqLM.from_pretrained(folder / kept_training.MODEL)
    sources = {told: [name.source(told) for name in names] for told in (False, True)}
    longest = max(map(len, sources[True]))
    most = 1 + max(len(one) for name in names for one in name.spellings)
    variants = {"letter table": scores([by_letters(name.text) for name in names], names, False)}
    made = export.export_litert(
        model, folder / FILE, sequence_length=longest, cache_length=most, samples=sources[True][:SHOWN]
    )
    generator = export.LiteRTGenerator(folder / FILE)
    by_file = {}
    for told in (False, True):
        key = "-with-country" if told else ""
        start = time.perf_counter()
        by_keras = model.generate(sources[told], most, batch_size=250, verbose="auto")
        variants[f"keras{key}"] = {**scores(by_keras, names, told), "seconds": time.perf_counter() - start}
        start = time.perf_counter()
        by_file[told] = [generator.generate(source, most) for source in track(sources[told], "The file writes")]
        variants[f"litert-dynamic_int8{key}"] = {
            **scores(by_file[told], names, told),
            "seconds": time.perf_counter() - start,
            "bytes": made.bytes,
            "same_as_keras": sum(map(str.__eq__, by_keras, by_file[told])) / len(names),
        }
    shown = [
        {**name._asdict(), "table": by_letters(name.text), "file": without, "file_with_country": with_country}
        for name, without, with_country in list(zip(names, by_file[False], by_file[True], strict=True))[:SHOWN]
    ]
    return {"relative_error": made.error, "variants": variants, "shown": shown}


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Trains, unless the folder holds what these settings gave, exports and measures."""
    pairs, held_out = split(settings)
    trained = kept_training.kept(folder, settings) or train(pairs, folder, settings, verbose)
    several = sum(len(name.spellings) > 1 for name in held_out) / len(held_out)
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "data": {"pairs": len(pairs), "held_out": len(held_out), "held_out_with_several_spellings": several},
        "training": trained,
        **measure(folder, held_out),
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    data, trained, variants = results["data"], results["training"], results["variants"]
    dials, machine, file = trained["settings"], results["machine"], variants["litert-dynamic_int8"]
    labels = {"letter table": "a letter for each, by a table", "keras": "Keras", "litert-dynamic_int8": "LiteRT int8"}
    rows = [
        [
            labels[name.removesuffix("-with-country")] + ", country told" * name.endswith("-with-country"),
            f"{one['cer_nearest']:.3f}",
            f"{one['cer_most_frequent']:.3f}",
            f"{one['exact']:.1%}",
            report.cell(one, "bytes", ".1f", 1e-6),
            report.cell(one, "seconds", ".0f"),
        ]
        for name, one in variants.items()
    ]
    header = ["", "CER, nearest spelling", "CER, most frequent", "exact, any spelling", "MB", "s for all"]
    said = [
        [
            *(one["text"], one["table"], one["file"], one["country"], one["file_with_country"]),
            ", ".join(one["spellings"][:3]),
        ]
        for one in results["shown"]
    ]
    return f"""{report.markdown(header, rows)}

{data["held_out"]:,} names held out by seed 0, of which {data["held_out_with_several_spellings"]:.0%} have several
attested spellings; {data["pairs"]:,} pairs of the others to learn. CER is the letters to change over the letters
wanted, of all held-out names together; "most frequent" is that of the country where one is told, which is the one that
attests the name most often. "Exact" is the share that is an attested spelling, capitals and all.

{trained["parameters"]:,} parameters, {trained["vocabulary_size"]} characters, {dials["layers"]} + {dials["layers"]}
layers, {dials["width"]} wide; {dials["epochs"]} epochs in {trained["seconds"]:.0f} s, while other programs ran beside.
The file's logits are {results["relative_error"]:.3g} from Keras' (relative), and it writes
{file["same_as_keras"]:.1%} of the names as Keras does. {machine["cores"]} cores of {machine["processor"]},
{results["date"]}.

The first {len(said)} held-out names:

{report.markdown(["name", "by the table", "by the file", "country", "country told", "attested"], said)}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few names: to see it run, not to measure it")
    parser.add_argument("--names", nargs="+", help="write these by the file, once it is there")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "romanise-names")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    if not (options.names and (folder / FILE).is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        results = run(folder, QUICK if options.quick else Settings(), verbose="auto")
        report.keep_results(results, section(results), folder, None if options.quick else HOME)
    for name in options.names or ():
        print(export.LiteRTGenerator(folder / FILE).generate(name))


if __name__ == "__main__":
    main()
