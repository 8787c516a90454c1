"""Trains the small models that are tracked here, from nothing, and writes each with its card and figures.

Expected: the folders tiny-* beside.
Command: python saved_models/make.py [NAME ...]

Each is a LiteRT file in int8 with its tokenizer inside, of at most 2 MB, that a few processor minutes make; the stories
in `applications/` say what more of them, or a pretrained model, reaches. Only data that may be used for this are read.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import keras
import numpy as np

import tfxformer
from tfxformer import export, samples, tasks, training
from tfxformer.data.evaluation import scores
from tfxformer.files import write_json, write_text
from tfxformer.recipes import pipeline
from tfxformer.text import Tokenizer

HOME = Path(__file__).parent
MOST_BYTES = 2_000_000
AUSTEN = "Jane Austen's six novels (1811 to 1818, public domain), from Debian's r-cran-janeaustenr (MIT)"


def story(name: str):
    """The module of a story, whose parts are used here with smaller dials."""
    spec = importlib.util.spec_from_file_location(name, HOME.parent / "applications" / name / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for their names
    spec.loader.exec_module(module)
    return module


def austen(path: Path) -> dict:
    """Goes on with a text as Jane Austen might have, character by character: a GPT."""
    gpt = story("novel_gpt")
    settings = replace(gpt.Settings(), steps=800)
    text = gpt.read_text("austen")
    model = gpt.make_model(text, "characters", settings)
    ids, held_out = (np.asarray(model.tokenizer.ids([part])[0], np.int32) for part in (text.train, text.held_out))
    gpt.fit(model, ids, held_out, settings, settings.steps, settings.learning_rate, 1, 2)
    pieces = gpt.windows(text.held_out, 16, settings.context)
    made = gpt.measure_file(model, path, "dynamic_int8", pieces, settings)
    dense = gpt.nats_per_character(model, held_out[:100_000], 100_000 - 1)
    return {
        "parameters": model.count_params(),
        "trained_on": f"{settings.steps:,} batches of {settings.batch_size} windows of five novels",
        "scored_on": f"the first 100,000 characters of Persuasion (Keras) and {len(pieces)} windows of it (the file)",
        "scores": {"nats a character, Keras": dense, "nats a character, the file": made["nats_per_token"]},
        "task": "text-generation",
        "example": "She was ",
    }


def names(path: Path) -> dict:
    """Arabic and Persian names in Latin letters: an encoder-decoder."""
    romanise = story("romanise_names")
    settings = replace(romanise.Settings(), width=128, epochs=1, learning_rate=2e-3, warmup=100, held_out=300)
    pairs, held_out = romanise.split(settings)
    pairs = pairs[:40_000]
    model = romanise.make_model(pairs, settings)
    steps = -(-len(pairs) // settings.batch_size)
    model.compile(training.AdamW(training.WarmupCosine(settings.learning_rate, steps, warmup=100), 0.01))
    model.fit(*map(list, zip(*pairs, strict=True)), batch_size=settings.batch_size, epochs=1, verbose=2)
    sources = [name.source(True) for name in held_out]
    most = 1 + max(len(one) for name in held_out for one in name.spellings)
    report = export.export_litert(
        model, path, sequence_length=max(map(len, sources)), cache_length=most, samples=sources[:12]
    )
    generator = export.LiteRTGenerator(path)
    found = romanise.scores([generator.generate(source, most) for source in sources], held_out, True)
    table = romanise.scores([romanise.by_letters(name.text) for name in held_out], held_out, False)
    return {
        "parameters": model.count_params(),
        "trained_on": f"{len(pairs):,} pairs of a name and a spelling",
        "scored_on": f"{len(held_out):,} held-out names, their country told",
        "scores": {
            "character error rate, nearest spelling": found["cer_nearest"],
            "character error rate of a table of letters": table["cer_nearest"],
            "an attested spelling": found["exact"],
        },
        "relative_error": report.error,
        "task": "text2text-generation",
        "example": "DZ شريف",
    }


def encoder(texts: list[str], vocabulary_size: int, length: int) -> tuple:
    """A small BERT with random weights, and its vocabulary, learned from texts."""
    tokenizer = Tokenizer.train_word_piece(texts, vocabulary_size)
    backbone = tfxformer.build(
        "minilm-l6",
        vocabulary_size=tokenizer.vocabulary_size,
        initializer_range=0.05,  # wider than BERT's, for a model that is narrower
        token_types=0,
        encoder__num_layers=2,
        encoder__hidden_size=128,
        encoder__attention__heads=4,
        encoder__feed_forward__size=512,
        encoder__max_positions=length,
        encoder__dropout=0.2,
    )
    return backbone, tokenizer


def addresses(path: Path) -> dict:
    """Parts of United States addresses: a label for each word."""
    split, length, epochs = samples.usaddress(), 48, 30
    backbone, tokenizer = encoder([" ".join(words) for words in split.train_texts], 1500, length)
    model = tasks.TokenClassifier(backbone, split.labels, tokenizer=tokenizer, sequence_length=length)
    pipeline.fit(model, split.train_texts, split.train_labels, epochs=epochs, batch_size=32, learning_rate=1e-3,
                 verbose=2)  # fmt: skip
    report = export.export_litert(model, path, sequence_length=length, samples=split.train_texts[:8])
    found = scores(export.LiteRTModel(path), split.test_texts, split.test_labels)
    return {
        "parameters": model.count_params(),
        "trained_on": f"{len(split.train_texts):,} addresses, {epochs} times",
        "scored_on": f"{len(split.test_texts):,} held-out addresses",
        "scores": {"F1 of parts, seqeval's": found["f1"], "accuracy of words": found["accuracy"]},
        "relative_error": report.error,
        "task": "token-classification",
        "example": "1600 Pennsylvania Avenue NW Washington DC 20500",
    }


def sentiment(path: Path) -> dict:
    """Whether a sentence of a film review is for or against the film."""
    split, length, epochs = samples.vader_movies(), 48, 5
    backbone, tokenizer = encoder(split.train_texts, 6000, length)
    model = tasks.TextClassifier(backbone, split.labels, tokenizer=tokenizer, sequence_length=length)
    pipeline.fit(model, split.train_texts, split.train_labels, epochs=epochs, batch_size=32, learning_rate=5e-4,
                 verbose=2)  # fmt: skip
    report = export.export_litert(model, path, sequence_length=length, samples=split.train_texts[:8])
    found = scores(export.LiteRTModel(path), split.test_texts, split.test_labels)
    commonest = max(split.train_labels.count(label) for label in split.labels) / len(split.train_labels)
    return {
        "parameters": model.count_params(),
        "trained_on": f"{len(split.train_texts):,} sentences, {epochs} times",
        "scored_on": f"{len(split.test_texts):,} held-out sentences",
        "scores": {"accuracy": found["accuracy"], "share of the commoner label": commonest},
        "relative_error": report.error,
        "task": "text-classification",
        "example": "a warm, funny and wise film",
    }


def answer(path: Path, task: str, example: str) -> str:
    """What the file says of its example: the text that it writes, its label, or a label for each word."""
    if task.endswith("generation"):
        return export.LiteRTGenerator(path).generate(example, 24)
    file = export.LiteRTModel(path)
    (found,) = file.predict([example])
    return " ".join(found) if task == "token-classification" else file.labels[int(np.argmax(found))]


# name: (what makes it, title, data and their licence, what it is not for)
MODELS = {
    "tiny-austen-gpt": (
        austen,
        "A GPT that read Jane Austen",
        AUSTEN,
        "It reads and writes 64 characters in all, and makes little sense.",
    ),
    "tiny-name-romaniser": (
        names,
        "Arabic and Persian names in Latin letters",
        "The names of arabic-name-romanizer: Wikidata and an Algerian corpus (CC0), DziriNames (MIT)",
        "Likely spellings, not those of anybody's passport.",
    ),
    "tiny-address-tagger": (
        addresses,
        "Parts of United States addresses",
        "The addresses of usaddress, labelled by hand (MIT)",
        "Addresses in the United States only; applications/address_tagging, from MiniLM, finds more.",
    ),
    "tiny-sentiment": (
        sentiment,
        "For or against: sentences of film reviews",
        "Sentences of reviews from rottentomatoes.com, which Pang and Lee collected (2005) and Hutto and Gilbert had "
        "scored by people (2014), from vaderSentiment, whose licence is MIT. The sentences are their writers'; none "
        "of them is in the file but the pieces of words that its vocabulary learned",
        "English film reviews, for or against and nothing between; applications/sentiment, from MiniLM, is right more "
        "often.",
    ),
}


def card(name: str, results: dict) -> str:
    """A model card in Markdown."""
    _, title, source, limits = MODELS[name]
    rows = "\n".join(f"| {key} | {value:.3f} |" for key, value in results["scores"].items())
    writes = results["task"].endswith("generation")
    command, options = ("generate", " --max-new-tokens 24") if writes else ("predict", "")
    return f"""---
license: apache-2.0
library_name: tfxformer
pipeline_tag: {results["task"]}
---
# {title}

`{name}.tflite`: {results["bytes"]:,} bytes, {results["parameters"]:,} parameters, int8, tokenizer inside.

```sh
tfxformer {command} saved_models/{name}/{name}.tflite "{results["example"]}"{options}
```
```text
{results["answer"]}
```

## Measured
| on {results["scored_on"]} | |
| --- | ---: |
{rows}

Trained from nothing on {results["trained_on"]} in {results["processor_seconds"]:.0f} processor seconds by
`python saved_models/make.py {name}`, on {results["date"]}, {results["machine"]["processor"]}. All of it, the scores
included, is that run's.

## Data and licence
{source}.
The weights are under the licence of this project, Apache-2.0.

## Limits
{limits}
"""


def make(name: str) -> dict:
    """Trains and writes one of the models."""
    folder, began = HOME / name, time.process_time()
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.tflite"
    keras.utils.set_random_seed(0)
    results = MODELS[name][0](path)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; what is tracked has at most {MOST_BYTES:,}.")
    results |= {
        "answer": answer(path, results["task"], results["example"]),
        "bytes": path.stat().st_size,
        "processor_seconds": time.process_time() - began,
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
    }
    write_json(folder / "results.json", results)
    write_text(folder / "README.md", card(name, results))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(MODELS)}; all by default")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MODELS):
        parser.error(f"no {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    for name in options.names or MODELS:
        results = make(name)
        print(name, results["bytes"], results["scores"])


if __name__ == "__main__":
    main()
