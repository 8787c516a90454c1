"""What else does it need? A small transformer reads what a Debian package depends on, and says what belongs to it.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/recommend/run.py [--quick] [--have PACKAGE ...]

Packages are the tokens, and the table of tokens begins as MiniLM's vectors of what Debian says of each in a line.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import keras
import numpy as np
import tokenizers
from baselines import WAYS
from baskets import Baskets, common, measured, ranks, split
from tokenizers import models, pre_tokenizers, processors

import tfxformer
from tfxformer import export, samples, tasks, training
from tfxformer.files import write_json
from tfxformer.json_files import read_json
from tfxformer.recipes import kept_training, pipeline, report
from tfxformer.text import Tokenizer

HOME = Path(__file__).parent
MODEL, FILE, LINES = "model.keras", "recommend-int8.tflite", "items.json"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ENDS = 2  # tokens of a row that are none of the basket: [CLS] and [SEP]
RARE = 10  # baskets in which a rare item is, at most
TEXT_TOKENS = 32  # of an item's line
SHOWN = 4  # baskets that RESULTS.md shows


@dataclass(frozen=True)
class Settings:
    """The dials.

    Attributes:
        sources: int or None, how many are read, in the order of their names; None for all.
        held_out: int, sources of which one item is to be guessed.
        length: int, tokens of a row; of larger baskets some items by chance.
        masking_rate: float, share of a basket that is to be guessed in training.
        learning_rate: float, a peak after a warmup of 6 %, falling to 0 on a line.
    """

    sources: int | None = None
    held_out: int = 3000
    layers: int = 2
    width: int = 128
    heads: int = 4
    length: int = 24
    masking_rate: float = 0.25
    dropout: float = 0.1
    batch_size: int = 64
    epochs: int = 30
    learning_rate: float = 2e-3
    seed: int = 0


QUICK = replace(Settings(), sources=1500, held_out=100, epochs=1)


# ---- data ----------------------------------------------------------------------------------------------------------


def read(settings: Settings) -> tuple[Baskets, dict[str, str]]:
    """The baskets, and what Debian says of each item in a line."""
    lines = {row.package: row.synopsis for row in samples.debian_descriptions()}
    needed = list(samples.debian_dependencies().items())[: settings.sources]
    described = {source: [name for name in names if name in lines] for source, names in needed}
    baskets = split(common(described), settings.held_out, settings.seed)
    return baskets, {item: lines[item] for item in baskets.items}


def tokenizer_of(items: list[str]) -> Tokenizer:
    """Each item is a token, with spaces between them."""
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *items])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(list(SPECIAL))
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return Tokenizer.from_json(backend.to_str())


def asked(row: list[str], length: int) -> str:
    """A basket as a text, with a mask in the place of what it lacks."""
    return " ".join([*row[: length - ENDS - 1], "[MASK]"])


# ---- training ------------------------------------------------------------------------------------------------------


def text_vectors(lines: dict[str, str]) -> np.ndarray:
    """MiniLM's vectors of the items, by their names and lines: float32 [items, 384]."""
    embedder = tasks.TextEmbedder.from_pretrained(samples.minilm(), dtype="bfloat16", sequence_length=TEXT_TOKENS)
    texts = [f"{name}: {line}" for name, line in lines.items()]
    return np.asarray(embedder.predict(texts, 128, verbose=0), "float32")


def build(items: list[str], vectors: np.ndarray, settings: Settings) -> tasks.MaskedLM:
    """An encoder without positions, since a basket has no order; its table begins as the items' vectors."""
    tokenizer = tokenizer_of(items)
    backbone = tfxformer.build(
        "minilm-l6",
        dtype="mixed_bfloat16",
        vocabulary_size=tokenizer.vocabulary_size,
        embedding_size=vectors.shape[1],
        token_types=0,
        encoder__num_layers=settings.layers,
        encoder__hidden_size=settings.width,
        encoder__attention__heads=settings.heads,
        encoder__feed_forward__size=4 * settings.width,
        encoder__positions="none",
        encoder__dropout=settings.dropout,
        encoder__attention_dropout=settings.dropout,
    )
    table = backbone.token_embedding.embeddings
    centred = vectors - vectors.mean(0)
    start = keras.ops.convert_to_numpy(table).copy()
    start[len(SPECIAL) :] = centred / centred.std() * backbone.config.initializer_range
    table.assign(start)
    return tasks.MaskedLM(
        backbone, tokenizer=tokenizer, sequence_length=settings.length, masking_rate=settings.masking_rate
    )


def train(baskets: Baskets, lines: dict[str, str], folder: Path, settings: Settings, verbose) -> dict:
    """Trains the model, keeps it in `folder`, and what its training took beside it."""
    keras.utils.set_random_seed(settings.seed)
    model = build(baskets.items, text_vectors(lines), settings)
    steps = settings.epochs * -(-len(baskets.rows) // settings.batch_size)
    rate = training.WarmupLinear(settings.learning_rate, steps, warmup=0.06)
    model.compile(training.AdamW(rate, 0.01, global_clipnorm=1.0))
    texts = [" ".join(row) for row in baskets.rows]
    start, of_processor = time.perf_counter(), time.process_time()
    history = model.fit(texts, batch_size=settings.batch_size, epochs=settings.epochs, verbose=verbose)
    trained = {
        "settings": asdict(settings),
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - of_processor,
        "parameters": model.count_params(),
        "history": pipeline.numbers(history),
    }
    model.save(folder / MODEL)  # no folder: no model of transformers is without positions
    write_json(folder / kept_training.TRAINED, trained)
    return trained


# ---- measuring -----------------------------------------------------------------------------------------------------


def keras_scores(model: tasks.MaskedLM, texts: list[str]) -> np.ndarray:
    """The logits of the items at the mask of each text: float32 [T, items]."""
    batch = model.encode(texts, sequence_length=model.sequence_length)
    masks = (batch["token_ids"] == model.tokenizer.mask_id).argmax(1)[:, None]
    logits = model.logits({**batch, "masked_positions": masks.astype("int32")}, 128, verbose=0)
    return logits[:, 0, len(SPECIAL) :]


def file_scores(file: export.LiteRTModel, texts: list[str]) -> np.ndarray:
    """The same by the file, one text at a time."""
    encoding = file.tokenizer.encode(texts, sequence_length=file.sequence_length)
    found = []
    for ids, mask in zip(encoding.token_ids, encoding.padding_mask, strict=True):
        logits = file.run("fill_mask", {"token_ids": ids[None], "padding_mask": mask[None]})["logits"]
        found.append(logits[0, int((ids == file.tokenizer.mask_id).argmax()), len(SPECIAL) :])
    return np.stack(found)


def measure(folder: Path, baskets: Baskets, settings: Settings) -> dict:
    """Where each way has the item that was held out, and what the file says."""
    left, wanted, rows = baskets.matrix(), baskets.wanted(), np.array(list(baskets.held_out))
    texts = [asked(baskets.rows[row], settings.length) for row in rows]
    model = keras.saving.load_model(folder / MODEL)
    made = export.export_litert(model, folder / FILE, sequence_length=settings.length, samples=texts[:4])
    file = export.LiteRTModel(folder / FILE)
    ways = {
        **{name: lambda way=way: way(left, rows) for name, way in WAYS.items()},
        "transformer, Keras": lambda: keras_scores(model, texts),
        "transformer, LiteRT int8": lambda: file_scores(file, texts),
    }
    rare = left.sum(0)[wanted] <= RARE
    variants, best = {}, None
    for name, way in ways.items():
        of_processor = time.process_time()
        best = way()
        places = ranks(best, left[rows], wanted)
        variants[name] = {
            **measured(places),
            "rare_recall": measured(places[rare])["recall"] if rare.any() else None,
            "processor_seconds": time.process_time() - of_processor,
        }
    variants[name] |= {"bytes": made.bytes, "relative_error": made.error}
    return {
        "variants": variants,
        "rare": int(rare.sum()),
        "shown": [shown(baskets, row, best[place]) for place, row in enumerate(rows[:SHOWN])],
    }


def shown(baskets: Baskets, row: int, scores: np.ndarray, count: int = 5) -> dict:
    """A basket, what was taken out, and the file's first guesses."""
    inside = set(baskets.rows[row])
    order = [baskets.items[place] for place in np.argsort(-scores, kind="stable")]
    return {
        "source": baskets.names[row],
        "left": baskets.rows[row],
        "wanted": baskets.held_out[int(row)],
        "guessed": [item for item in order if item not in inside][:count],
    }


def run(folder: Path, settings: Settings, verbose) -> dict:
    """Trains, unless the folder holds what these settings gave, exports and measures."""
    baskets, lines = read(settings)
    write_json(folder / LINES, lines)
    trained = kept_training.kept(folder, settings) or train(baskets, lines, folder, settings, verbose)
    return {
        "date": date.today().isoformat(),
        "machine": pipeline.machine(),
        "data": {
            "sources": len(baskets.names),
            "items": len(baskets.items),
            "dependencies": sum(map(len, baskets.rows)) + len(baskets.held_out),
            "held_out": len(baskets.held_out),
        },
        "training": trained,
        **measure(folder, baskets, settings),
    }


def section(results: dict) -> str:
    """The results as Markdown."""
    data, trained, machine, variants = (results[name] for name in ("data", "training", "machine", "variants"))
    rows = [
        [
            name,
            *(report.cell(one, score, ".3f") for score in ("recall", "mrr", "rare_recall")),
            report.cell(one, "bytes", ".1f", 1e-6),
        ]
        for name, one in variants.items()
    ]
    dials, losses = trained["settings"], trained["history"]["loss"]
    said = "\n".join(
        f"- {one['source']}: {', '.join(one['left'][:8])}{' ...' if len(one['left']) > 8 else ''}\n"
        f"  - wanted: {one['wanted']}\n  - the file: {', '.join(one['guessed'])}"
        for one in results["shown"]
    )
    return f"""{report.markdown(["", "recall@10", "MRR", "recall@10 of rare items", "MB"], rows)}

{data["sources"]:,} sources need {data["items"]:,} packages, {data["dependencies"]:,} times in all; one package was
taken out of each of {data["held_out"]:,} sources, by seed {dials["seed"]}, and is looked for among all that the source
is not left with. {results["rare"]:,} of these are rare: in at most {RARE} of the baskets that are left.

The transformer has {trained["parameters"]:,} parameters, {dials["layers"]} layers, {dials["width"]} wide, and reads
{dials["length"] - ENDS} packages; {dials["epochs"]} epochs in {trained["seconds"]:.0f} s
({trained["processor_seconds"]:.0f} s of the processor, which had other work too), loss {losses[0]:.2f} to
{losses[-1]:.2f}. The file's logits are {variants["transformer, LiteRT int8"]["relative_error"]:.3g} from Keras'
(relative). {machine["cores"]} cores of {machine["processor"]}, {results["date"]}.

The first {len(results["shown"])} sources with a package taken out:

{said}
"""


def by_file(folder: Path, have: list[str], count: int = 10) -> str:
    """What the file recommends beside packages, a line each."""
    lines, file = read_json(folder / LINES), export.LiteRTModel(folder / FILE)
    if unknown := [name for name in have if name not in lines]:
        return f"Too few packages of Debian need {', '.join(unknown)}: leave that out."
    (fillings,) = file.predict([asked(have, file.sequence_length)], top_k=count + len(have) + len(SPECIAL))[0]
    found = [filling for filling in fillings if filling.token in lines and filling.token not in have]
    return "\n".join(f"{one.probability:6.1%}  {one.token:<32}{lines[one.token]}" for one in found[:count])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few sources: to see it run, not to measure it")
    parser.add_argument("--have", nargs="+", metavar="PACKAGE", help="recommend more by the file, once it is there")
    parser.add_argument("--output", type=Path, default=Path("saved_models") / "recommend")
    options = parser.parse_args()
    folder = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    if not (options.have and (folder / FILE).is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        results = run(folder, QUICK if options.quick else Settings(), verbose="auto")
        report.keep_results(results, section(results), folder, None if options.quick else HOME)
    if options.have:
        print(by_file(folder, options.have))


if __name__ == "__main__":
    main()
