"""SmolLM2-135M, or Gemma 3 270M, on this CPU under three runtimes: LiteRT files of ours, llama.cpp, torch.

    python benchmarks/decoder.py --rounds 10
    python benchmarks/decoder.py --rounds 10 --model gemma3 --accept-terms

One GGUF file (`MODELS`) is what all begin from: llama.cpp runs it as it is, ours are exported from
the same weights, torch runs them in float32. Batch 1, greedy, two threads each. Two cases: a prompt of 128 tokens in
a cache of 256 slots and one of 512 in 1040, each followed by 64 new tokens. "prompt" is reading the prompt, "decode"
the new tokens, both in tokens a second. "perplexity" is that of news articles by which no weight was rounded.
`benchmarks/generation.py` holds Keras' own generation against torch's.

Every runtime lives in a process of its own and is driven in turn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np
from peers import decoders

CASES = {256: 128, 1040: 512}  # slots of the cache (1,024 would be slow: `export.decoder`): tokens of the prompt
NEW_TOKENS = 64
PARTS = {"prompt": "read", "decode": "decode"}
# (part, slots, how many times as fast as llama.cpp our int8 and int4 files are to be), of SmolLM2
TARGETS = [("prompt", 256, 8.0), ("decode", 256, 1.5), ("prompt", 1040, 8.0), ("decode", 1040, 1.2)]
ROUNDING_TEXTS, UNSEEN_TEXTS = 20, 6  # articles that int4 is rounded by, and those that it is verified on
SCORED_TOKENS = 200  # of each of the unseen texts
PACKAGES = ["tensorflow", "keras", "ai-edge-litert", "torch", "transformers", "llama-cpp-python"]


@dataclass(frozen=True)
class Model:
    """What is raced.

    Attributes:
        title: its name for people.
        sample: its function of `tfxformer.samples`.
        llama_cpp: the runtime that reads its GGUF file.
        results: the name of its results.
        tolerances: the error to let pass by modes of ours, None for the exporter's own.
        terms: whether it has terms to accept.
    """

    title: str
    sample: str
    llama_cpp: str
    results: str
    tolerances: dict[str, float | None]
    terms: bool = False

    def gguf(self) -> Path:
        """The GGUF file. Its terms, where it has some, `main` has seen accepted."""
        from tfxformer import samples

        return getattr(samples, self.sample)(**({"accept_terms": True} if self.terms else {}))


# Gemma's logits are off by 0.064 in 8 bits.
MODELS = {
    "smollm2": Model(
        "SmolLM2-135M-Instruct", "smollm2", "llama.cpp Q4_1", "decoder", {"dynamic_int8": None, "int4_block32": None}
    ),
    "gemma3": Model(
        "Gemma 3 270M", "gemma3_270m", "llama.cpp Q4_K_M", "decoder-gemma3",
        {"dynamic_int8": 0.1, "int4_block32": 0.4}, terms=True,
    ),
}  # fmt: skip


def write_files(folder, model_name, modes, all_slots) -> None:
    """Exports our files and saves the checkpoint that torch reads, where they are not there yet."""
    from tfxformer import export, samples, tasks

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    raced = MODELS[model_name]
    model = tasks.CausalLM.from_pretrained(raced.gguf())
    if not (folder / "checkpoint" / "config.json").exists():
        model.save_pretrained(folder / "checkpoint")
    for slots in all_slots:
        for mode in modes:
            path = folder / f"{mode}-{slots}.tflite"
            if not path.exists():
                print(path.name, file=sys.stderr, flush=True)
                news, int4 = samples.bbc_topics(), mode.startswith("int4")
                export.export_litert(
                    model,
                    path,
                    mode,
                    cache_length=slots,
                    prefill_lengths=(CASES[slots],),
                    representative=news.train_texts[:ROUNDING_TEXTS] if int4 else None,
                    samples=news.test_texts[:UNSEEN_TEXTS] if int4 else None,
                    tolerance=raced.tolerances[mode],
                )


def ids_of(folder, text: str) -> tuple[int, ...]:
    """The tokens of a text."""
    from tfxformer.text import Tokenizer

    return tuple(Tokenizer.from_pretrained(Path(folder) / "checkpoint").ids([text])[0])


def case_of(folder, slots: int, options) -> decoders.Case:
    """The first tokens of news articles, to be read and gone on from."""
    from tfxformer import samples

    prompt = ids_of(folder, " ".join(samples.bbc_topics().test_texts[:4]))[: CASES[slots]]
    gguf = str(MODELS[options.model].gguf())
    return decoders.Case(str(folder), gguf, prompt, slots, NEW_TOKENS, options.threads)


def perplexities(folder, options) -> dict:
    """Of each runtime on the same tokens, each in a process of its own."""
    from tfxformer import samples

    texts = samples.bbc_topics().test_texts[:UNSEEN_TEXTS]
    rows, found = [ids_of(folder, text)[:SCORED_TOKENS] for text in texts], {}
    case = case_of(folder, options.slots[0], options)
    for name in options.runtimes:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            nats = pool.submit(decoders.nats, name, case, rows).result()
        found[name] = {"perplexity": float(np.exp(np.mean(nats))), "tokens": len(nats)}
        print(f"{name:24s} perplexity {found[name]['perplexity']:.2f} of {len(nats)} tokens")
    return found


def race(folder, slots: int, part: str, options) -> dict:
    """All runtimes on one case: tokens a second, and how many times as fast as each peer ours are."""
    print(f"{part}, {slots} slots", file=sys.stderr, flush=True)
    length, case = CASES[slots], case_of(folder, slots, options)
    peers = {name: decoders.Peer(name, case, PARTS[part]) for name in options.runtimes}
    raced = harness.race(peers, options.rounds, 1, warmups=1)
    seconds = {name: [time.clock for time in times] for name, times in raced.items()}
    tokens = length if part == "prompt" else NEW_TOKENS
    found = {}
    for name, times in seconds.items():
        ratios = {
            peer: harness.spread([theirs / own for theirs, own in zip(seconds[peer], times, strict=True)])
            for peer in seconds
        }
        speed = harness.spread([tokens / value for value in times])
        found[name] = {"tokens_per_second": speed, "times_as_fast_as": ratios}
    return {"part": part, "slots": slots, "prompt_tokens": length, "new_tokens": NEW_TOKENS, "runtimes": found}


def show(result: dict) -> None:
    """The table of one race."""
    print(f"\n{result['part']}, {result['slots']} slots, a prompt of {result['prompt_tokens']} tokens")
    for name, one in sorted(result["runtimes"].items(), key=lambda item: -item[1]["tokens_per_second"]["median"]):
        ratio = result["runtimes"][decoders.OURS]["times_as_fast_as"][name]
        print(
            f"{name:24s} {quartiles(one['tokens_per_second'], 1)} tokens/s   {decoders.OURS} is {quartiles(ratio, 2)}x"
        )


def quartiles(values: dict, digits: int) -> str:
    """A median, its quartiles in brackets."""
    middle, low, high = (f"{values[key]:.{digits}f}" for key in ("median", "low_quartile", "high_quartile"))
    return f"{middle} ({low} to {high})"


def targets(races: list) -> list:
    """What ours should reach beside the peers, and what they reached."""
    found = []
    for result in races:
        for part, slots, wanted in TARGETS:
            for ours in decoders.MODES:
                one, peer = result["runtimes"].get(ours), MODELS["smollm2"].llama_cpp
                if (result["part"], result["slots"]) == (part, slots) and one and peer in one["times_as_fast_as"]:
                    ratio = one["times_as_fast_as"][peer]["median"]
                    what = f"{ours}, {part} at {slots} slots, over {peer}"
                    found.append({"what": what, "found": ratio, "at_least": wanted})
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="smollm2", help="(default: %(default)s)")
    parser.add_argument("--accept-terms", action="store_true", help="you accept those of the model: Gemma's")
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each runtime (default: %(default)s)")
    parser.add_argument("--slots", nargs="+", type=int, choices=CASES, default=list(CASES))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--runtimes", nargs="+", choices=decoders.RUNTIMES, help="(default: all of the model)")
    parser.add_argument("--files", help="folder to keep the models in, and to take them from if it is there")
    options = parser.parse_args()
    model = MODELS[options.model]
    if model.terms and not options.accept_terms:
        parser.error(f"{model.title} has terms (`python -m tfxformer.samples list`): --accept-terms where you do")
    others = {one.llama_cpp for one in MODELS.values()} - {model.llama_cpp}
    options.runtimes = options.runtimes or [name for name in decoders.RUNTIMES if name not in others]
    if strange := others.intersection(options.runtimes):
        parser.error(f"{', '.join(strange)} is of another model; that of {options.model} is {model.llama_cpp!r}")
    if decoders.OURS not in options.runtimes:
        parser.error(f"the ratios are those of {decoders.OURS!r}: name it among the runtimes")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # of the processes to come

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.files or temporary)
        modes = [decoders.MODES[name] for name in options.runtimes if name in decoders.MODES]
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(write_files, folder, options.model, modes, options.slots).result()
        machine = harness.machine(PACKAGES)  # the load before ours
        races = []
        for slots in options.slots:
            for part in options.parts:
                races.append(race(folder, slots, part, options))
                show(races[-1])
        scores = perplexities(folder, options)
        sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.tflite"))}
    results = {
        "what": f"{model.title}, batch 1, greedy, each runtime in its own process",
        "command": harness.command(options.files),
        "rounds": options.rounds,
        "threads": options.threads,
        "machine": machine,
        "file_bytes": sizes,
        "targets": targets(races) if options.model == "smollm2" else [],
        "races": races,
        "perplexity": scores,
    }
    print(f"\n{machine['processor']}")
    for target in results["targets"]:
        print(f"{target['what']}: {target['found']:.2f}x, wanted {target['at_least']}x")
    print(harness.write(model.results, results))


if __name__ == "__main__":
    main()
