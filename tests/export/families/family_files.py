"""Writes docs/files_of_families.md: what the LiteRT files of every family say, against transformers and against Keras.

    python tests/export/families/family_files.py            # all of them
    python tests/export/families/family_files.py llama-lm   # this case again, the others as they stand

Needs the extra [reference]. A case is one of `make_fixtures` or `seq2seq_cases`, a tiny random checkpoint of that
architecture by transformers, its matrices so much wider that the converter quantizes them: those of fewer than 1024
numbers it leaves float. Ends with an error where a file says or writes something else. The slow tests run it, too.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import gc
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `make_fixtures`, `seq2seq_cases`, `tiny`
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "checkpoints"))  # `test_families`

import make_fixtures
import numpy as np
import scipy.special
import seq2seq_cases
import test_families
import tiny

from tfxformer import export, generation, tasks
from tfxformer.checkpoints.families import FAMILIES
from tfxformer.text.generation.settings import GenerationConfig

SEQ2SEQ = "seq2seq "
# Cases that differ from the first one of their family in a kind of layer, a position or a switch that a file sees.
ODD = (
    *("albert-groups", "electra-same-width", "roberta-two-types", "bert-silu-one-type"),
    *("deberta-own-projections", "deberta-every-distance", "deberta-one-term", "deberta-the-other"),
    *("deberta-no-distances", "deberta-v1-tagger", "deberta-v1-classifier"),
    *("modernbert-biases", "modernbert-answers", "modernbert-all-full", "modernbert-classifier-mean"),
    *("gte-classifier", "gte-published-masked-lm", "nomic-tagger"),
    *("gpt2-inner", "gpt2-unscaled", "gpt2-own-head", "neox-sequential", "neox-half-turned", "neox-dynamic"),
    *("opt-post-norm-projected", "opt-no-final-norm", "opt-no-bias", "bloom-six-heads-old", "bloom-four-heads"),
    *("llama-biases", "llama-one-group-wide-heads", "llama-linear", "llama-dynamic", "llama-llama3"),
    *("llama-yarn-scaled", "mistral-no-window", "qwen2-window", "qwen2-layer-types", "phi-old"),
    *("gpt-neo-old", "gpt-neo-no-window", "falcon-40b", "falcon-11b", "falcon-rw", "falcon-rw-rotary"),
    *("starcoder2-old", "starcoder2-no-bias", "gptj-whole-heads-old", "bigcode-many-heads", "bigcode-unscaled-old"),
    *("stablelm-parallel", "stablelm-old", "qwen3-biases-window", "gemma-one-group-own-head", "gemma2-no-caps"),
    *("gemma3-capped", "gemma3-defaults-old", "smollm3-window", "phi3-many-heads-window", "phi3-partial-old"),
    *("phi3-longrope-short", "olmo3-linear-old", "exaone4-no-window", "granite-factors-old", "seed-oss-old"),
    *("helium-old", "ernie4_5-old", "glm4-old", "cohere2-old"),
)
HEADS = ("causal-lm", "masked-lm", "token-classification")  # whose first case of a family is its ordinary one
WIDER = 3
LONGER = {"max_position_embeddings": 40}  # for cases of so few positions that no prompt and answer fit
WIDTHS = {
    *("hidden_size", "n_embd", "dim", "d_model", "embedding_size", "word_embed_proj_dim", "intra_bottleneck_size"),
    *("intermediate_size", "hidden_dim", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff"),
    *("encoder_ffn_dim", "decoder_ffn_dim"),
    *("num_attention_heads", "n_head", "n_heads", "num_heads", "num_kv_heads", "num_key_value_heads"),
    *("encoder_attention_heads", "decoder_attention_heads"),
}
VOCABULARIES = ("vocab_size", "decoder_vocab_size")
CACHE, PREFILL, PROMPTS, NEW = 40, 8, (3, 23), 16
SOURCES, TARGET = (10, 16), 20
# Random weights lose more than trained ones, which may lose 5e-2 in dynamic_int8.
TOLERANCES = {"float32": 1e-4, "dynamic_int8": 0.2}
LARGER = {"qwen3_5-lm": {"dynamic_int8": 0.35}}  # its state gathers the rounding of every token before
TABLE = Path(__file__).resolve().parents[3] / "docs" / "files_of_families.json"
PAGE = """\
# Every family as a LiteRT file

`python tests/export/families/family_files.py` makes a tiny random checkpoint of each architecture by transformers
{transformers}, opens it, exports it in float32 and in dynamic_int8, and runs the files on {processor}.
An error is the relative L2 distance of the files' logits from those of transformers (encoders) or from those of Keras
behind every token (decoders, which equal transformers by [coverage.md](coverage.md)). Random weights lose more in int8
than trained ones; allowed were {int8:g} ({larger}), and {float32:g} in float32.
"Greedy equal" are the tokens that the float32 file wrote and Keras, without a cache, finds most likely at that place:
{new} each behind prompts of {short} and {long} tokens, one shorter and one longer than a prefill, and longer with their
answers than every window; of encoder-decoders behind three sources, whose best of three beams is Keras' too.

**{cases} cases of {measured} of the {families} families** have been measured so far; a whole run measures all.

{table}
"""


@dataclasses.dataclass(frozen=True)
class Found:
    """What was measured of a case: relative L2 errors of both files' outputs, and tokens of the float32 file.

    Attributes:
        family: str, the `model_type`.
        float32, int8: float.
        seconds: float, processor time of both exports and all else.
        written, equal: int, tokens that the float32 file chose, and how many of them Keras finds most likely there.
    """

    family: str
    float32: float
    int8: float
    seconds: float
    written: int = 0
    equal: int = 0


def cases() -> list[str]:
    """One ordinary case of each family, and the odd ones."""
    ordinary = {}
    for head in HEADS:
        for name, case in make_fixtures.CASES.items():
            if case.head == head:
                ordinary.setdefault(case.family, name)
    return [*ordinary.values(), *(SEQ2SEQ + name for name in seq2seq_cases.CASES), *ODD]


def wider(keys: dict) -> dict:
    """The widths among keys of a config.json, and numbers of heads, times `WIDER`: heads are as wide as before."""
    return {name: value * WIDER for name, value in keys.items() if name in WIDTHS and value and value > 1}


def check(name: str, folder: Path, tokenizer) -> Found:
    """Exports a case in both modes, runs the files, and measures them."""
    began = time.process_time()
    if name.startswith(SEQ2SEQ):
        found = check_seq2seq(name.removeprefix(SEQ2SEQ), folder, tokenizer)
    else:
        case = make_fixtures.CASES[name]
        longer = LONGER if name.endswith("-dynamic") else {}
        case = dataclasses.replace(case, config={**case.config, **wider(make_fixtures.keys_of(case)), **longer})
        _, inputs, results = make_fixtures.make(case, folder / "checkpoint")
        model = test_families.open_case(name, folder / "checkpoint", tokenizer)
        if case.head == "causal-lm":
            found = check_decoder(model, folder)
        else:
            found = check_encoder(model, folder, inputs, results["logits"])
    family = json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))["model_type"]
    return Found(family, *found[:2], time.process_time() - began, *found[2:])


def relative(pairs) -> float:
    """The relative L2 distance of all (found, wanted) together."""
    pairs = [(np.asarray(found, np.float64), np.asarray(wanted, np.float64)) for found, wanted in pairs]
    difference = sum(np.square(found - wanted).sum() for found, wanted in pairs)
    return float(np.sqrt(difference / sum(np.square(wanted).sum() for _, wanted in pairs)))


def check_encoder(model, folder: Path, inputs: dict, wanted) -> tuple:
    """Logits at the real tokens of each row, a padded one and one with a token hidden inside among them."""
    rows = [{name: array[i : i + 1] for name, array in inputs.items()} for i in range(len(inputs["token_ids"]))]
    errors = []
    for mode, tolerance in TOLERANCES.items():
        path = folder / f"{mode}.tflite"
        length = rows[0]["token_ids"].shape[1]
        export.export_litert(model, path, mode, sequence_length=length, samples=rows, tolerance=tolerance)
        file, pairs = export.LiteRTModel(path), []
        for row, logits in zip(rows, wanted, strict=True):
            outputs = file.run(next(iter(file.signatures)), row)
            if "probabilities" in outputs:  # a classifier's
                outputs, logits = {"logits": outputs["probabilities"]}, scipy.special.softmax(logits)
            (found,) = outputs["logits"]
            real = row["padding_mask"][0] > 0 if logits.ndim == 2 else slice(None)
            pairs.append((found[real], logits[real]))
        errors.append(relative(pairs))
    return tuple(errors)


def check_decoder(model, folder: Path) -> tuple:
    """Greedy tokens behind prompts that one call reads and that several do, past every window; logits behind each."""
    generator, vocabulary = np.random.default_rng(7), model.backbone.config.vocabulary_size
    prompts = [generator.integers(3, vocabulary, length).tolist() for length in PROMPTS]
    most = min(CACHE, model.backbone.longest_text)
    errors, written, equal = [], 0, 0
    for mode, tolerance in TOLERANCES.items():
        path = folder / f"{mode}.tflite"
        export.export_litert(
            model, path, mode, cache_length=most, prefill_lengths=[PREFILL], samples=prompts, tolerance=tolerance
        )
        file, pairs = export.LiteRTGenerator(path, num_threads=1), []
        file.generation_config = GenerationConfig()  # an end token ends nothing here
        for prompt in prompts:
            ids = file.generate_ids(prompt, NEW)
            assert len(ids) == NEW
            steps = file.steps()
            steps.prefill(prompt[:-1])
            found = np.stack([steps.decode(token) for token in [prompt[-1], *ids[:-1]]])
            row = np.asarray([[*prompt, *ids[:-1]]], "int32")
            wanted = np.asarray(model({"token_ids": row, "padding_mask": np.ones_like(row)}))[0, -NEW:]
            pairs.append((found, wanted))
            if mode == "float32":
                written, equal = written + NEW, equal + int(np.equal(ids, wanted.argmax(-1)).sum())
        errors.append(relative(pairs))
    return (*errors, written, equal)


def check_seq2seq(name: str, folder: Path, tokenizer) -> tuple:
    """Greedy targets of sources of both signatures and of one that fills neither; the best of three beams."""
    keys = seq2seq_cases.keys_of(name)
    larger = {key: keys[key] + 10 for key in VOCABULARIES if key in keys}  # as many as the tokenizer has, at least
    seq2seq_cases.reference(name, **wider(keys), **larger).save_pretrained(folder / "checkpoint")
    model = tasks.Seq2SeqLM.from_pretrained(folder / "checkpoint", tokenizer=tokenizer)
    texts = ["a dog", "the bad dog sat on the mat", "a very good cat ran fast and the red dog was slow"]
    rows = model.tokenizer.ids(texts)
    assert [sum(len(row) > length for row in rows) for length in SOURCES] == [1, 0]
    model.generation_config = GenerationConfig()
    errors, searched, written, equal = [], [], 0, 0
    for mode, tolerance in TOLERANCES.items():
        path = folder / f"{mode}.tflite"
        export.export_litert(
            model, path, mode, sequence_lengths=SOURCES, cache_length=TARGET, samples=texts, tolerance=tolerance
        )
        file, pairs = export.LiteRTGenerator(path, num_threads=1), []
        for text, row in zip(texts, rows, strict=True):
            ids = file.generate_ids(row, NEW)
            assert len(ids) == NEW
            steps = file.steps()
            steps.encode(row)
            before = [model.decoder_start_token_id, *ids[:-1]]
            found = np.stack([steps.decode(token) for token in before])
            wanted = keras_logits(model, row, before)
            pairs.append((found, wanted))
            if mode == "float32":
                written, equal = written + NEW, equal + int(np.equal(ids, wanted.argmax(-1)).sum())
                searched.append(file.generate(text, NEW, num_beams=3))
        errors.append(relative(pairs))
    assert searched == model.generate(texts, NEW, sampler=generation.Beams(3), jit_compile=False)
    return (*errors, written, equal)


def keras_logits(model, source, target) -> np.ndarray:
    """What Keras, without a cache, says behind each token of a target: [tokens, V]."""
    parts = {"encoder": np.asarray([source], "int32"), "decoder": np.asarray([target], "int32")}
    inputs = {f"{stack}_token_ids": ids for stack, ids in parts.items()}
    inputs |= {f"{stack}_padding_mask": np.ones_like(ids) for stack, ids in parts.items()}
    return np.asarray(model(inputs))[0]


def faults(name: str, found: Found) -> str:
    """What is wrong with a case, or nothing."""
    errors, limits = {"float32": found.float32, "dynamic_int8": found.int8}, {**TOLERANCES, **LARGER.get(name, {})}
    wrong = [f"{mode}: {error:.1e}" for mode, error in errors.items() if not error <= limits[mode]]
    if found.equal < found.written:
        wrong.append(f"{found.equal} of {found.written} greedy tokens")
    return ", ".join(wrong)


def measured(name: str) -> tuple[str, dict]:
    """(name, what was found), in a process of its own."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    gc.collect()
    gc.freeze()  # the converter collects again and again, through all that TensorFlow holds for good
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(sys.stderr):
        try:
            found = check(name, Path(place) / "case", tiny.tokenizer(place))
        except Exception as error:
            raise RuntimeError(f"{name}: {error}") from error
    return name, dataclasses.asdict(found)


def page(rows: dict[str, Found], versions: dict) -> str:
    """The rows by family, in the order of `FAMILIES`."""
    lines = [["family", "case", "file float32", "file int8", "greedy equal"]]
    lines.append(["---"] * len(lines[0]))
    for family in FAMILIES:
        for name, row in rows.items():
            if row.family == family:
                equal = f"{row.equal} of {row.written}" if row.written else ""
                lines.append([family, name.removeprefix(SEQ2SEQ), f"{row.float32:.1e}", f"{row.int8:.1e}", equal])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    short, long = PROMPTS
    modes = {"float32": TOLERANCES["float32"], "int8": TOLERANCES["dynamic_int8"]}
    counts = {"cases": len(rows), "measured": len({row.family for row in rows.values()}), "families": len(FAMILIES)}
    larger = ", ".join(f"{one['dynamic_int8']:g} for {name}" for name, one in LARGER.items())
    return PAGE.format(table=table, new=NEW, short=short, long=long, larger=larger, **modes, **counts, **versions)


def main():
    import platform

    import transformers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="those to measure again; none for all")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if unknown := set(options.cases) - set(cases()):
        parser.error(f"{', '.join(sorted(unknown))}: there is no such case. There are {', '.join(cases())}.")
    wrong = []
    stored = json.loads(TABLE.read_text(encoding="utf-8"))["cases"] if options.cases else {}
    names = options.cases or cases()
    versions = {"transformers": transformers.__version__, "processor": platform.machine()}
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        for done in concurrent.futures.as_completed([pool.submit(measured, name) for name in names]):
            try:
                name, stored[name] = done.result()
            except RuntimeError as error:  # the other cases are measured all the same
                print(error, flush=True)
                wrong.append(str(error))
                continue
            print(f"{name}: {stored[name]}", flush=True)
            TABLE.write_text(
                json.dumps({**versions, "cases": stored}, indent=1, sort_keys=True) + "\n", encoding="utf-8"
            )
    rows = {name: Found(**stored[name]) for name in cases() if name in stored}
    TABLE.with_suffix(".md").write_text(page(rows, versions), encoding="utf-8")
    wrong += [f"{name}: {fault}" for name, row in rows.items() if (fault := faults(name, row))]
    absent = sorted(set(FAMILIES) - {row.family for row in rows.values()})
    if wrong or absent:
        sys.exit("\n".join([*wrong, *(f"no case of {family}" for family in absent)]))


if __name__ == "__main__":
    main()
