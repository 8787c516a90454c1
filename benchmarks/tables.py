"""Writes docs/results.md from the results files, each with the command that made it.

python benchmarks/tables.py
"""

from __future__ import annotations

from pathlib import Path

import model_tables
from cells import RESULTS, made_by, markdown, read, spread

from tfxformer.recipes import report

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"


def demo() -> str:
    """BBC topics on the whole road."""
    results = read("bbc-topics")
    return f"**The demo** (`tfxformer demo`)\n\n{report.markdown_table(results)}\n\n{report.conditions(results)}\n"


def encoder() -> str:
    """Inference beside the peers."""
    results = read("encoder")
    parts = []
    for race in results["races"]:
        rows = sorted(race["runtimes"].items(), key=lambda item: item[1]["seconds"]["median"])
        table = markdown(
            ["runtime", "ms", "our int8 is faster by", "relative error"],
            [
                [
                    name,
                    spread(one["seconds"], 1e3),
                    spread(one["ours_is_faster"], unit="x"),
                    f"{one['relative_error']:.0e}",
                ]
                for name, one in rows
            ],
        )
        parts.append(f"{race['model']}, batch {race['batch']}, {race['length']} tokens:\n\n{table}")
    if mixed := results.get("reviews"):
        rows = [
            [name, f"{one['texts_per_second']:.0f}", spread(one["ours_is_faster"], unit="x")]
            for name, one in mixed["roads"].items()
        ]
        header = [f"`predict` on {mixed['texts']} reviews of mixed lengths", "texts/s", "the first is faster by"]
        parts.append(markdown(header, rows))
    return f"**Inference of MiniLM-L6**, {results['threads']} threads\n\n" + "\n".join(parts) + f"\n{made_by(results)}"


def training_step() -> str:
    """Training beside the peers, a table for each precision and length."""
    parts = []
    for path in sorted(RESULTS.glob("training_step-*.json")):
        results = read(path.stem)
        rows = [
            [
                name,
                f"{peer['tokens_per_second']:,.0f}",
                spread(peer["ours_is_faster"], unit="x"),
                spread(peer["ours_is_faster_by_processor"], unit="x"),
            ]
            for name, peer in results["peers"].items()
        ]
        header = [results["what"], "tokens/s", "tfxformer is faster by", "by processor seconds"]
        table = markdown(header, rows)
        parts.append(f"{table}\n{made_by(results)}")
    return "**Training of MiniLM-L6**, one training step\n\n" + "\n".join(parts)


def training_features() -> str:
    """What each feature of training costs, a column for each model."""
    found = [read(path.stem) for path in sorted(RESULTS.glob("training_features-*.json"))]
    names = list(dict.fromkeys(name for results in found for name in results["features"]))
    header = ["a step of `fit` with", *(f"{results['what']}: times plain" for results in found)]
    rows = [[name, *(spread(results["features"][name]["times_plain"]) for results in found)] for name in names]
    return (
        f"**What training's features cost**, each beside a plain `DistributedModel`\n\n{markdown(header, rows)}\n"
        + "\n".join(f"{results['what']}: {made_by(results)}" for results in found)
    )


def decoder(name: str = "decoder") -> str:
    """A language model on LiteRT beside the peers."""
    results = read(name)
    title = results["what"].split(",")[0]
    parts = []
    for race in results["races"]:
        ours = race["runtimes"]["tfxformer int8"]["times_as_fast_as"]
        rows = [
            [name, spread(one["tokens_per_second"], digits=0), spread(ours[name], unit="x")]
            for name, one in sorted(race["runtimes"].items(), key=lambda item: -item[1]["tokens_per_second"]["median"])
        ]
        what = f"reading a prompt of {race['prompt_tokens']}" if race["part"] == "prompt" else "decoding"
        table = markdown([f"{what} tokens, cache of {race['slots']}", "tokens/s", "our int8 is faster by"], rows)
        parts.append(table)
    sizes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in results["file_bytes"].items())
    scores = results.get("perplexity", {})
    said = ", ".join(f"{name} {one['perplexity']:.2f}" for name, one in scores.items())
    said = f" Perplexity of {next(iter(scores.values()))['tokens']:,} tokens of unseen news: {said}." if scores else ""
    return (
        f"**{title} on LiteRT**, batch 1, {results['threads']} threads\n\n" + "\n".join(parts)
        + f"\n{sizes}.{said} {made_by(results)}"
    )  # fmt: skip


def seq2seq() -> str:
    """An encoder with a decoder beside the peers: reading a source, a further token, all of it; and a step."""
    results = read("seq2seq")
    titles = {
        "first": "reading 128 tokens and writing one",
        "token": "a further token",
        "whole": "128 tokens in, 64 out",
    }
    parts = []
    for part, title in titles.items():
        found = results["parts"][part]
        ours = found["tfxformer int8"]["times_as_fast_as"]
        rows = [
            [name, spread(one["seconds"], 1e3), spread(ours[name], unit="x")]
            for name, one in sorted(found.items(), key=lambda item: item[1]["seconds"]["median"])
        ]
        parts.append(markdown([title, "ms", "our int8 is faster by"], rows))
    step = results["training_step"]["torch"]["ours_is_faster"]
    return (
        f"**T5-small's shape**, batch 1, {results['threads']} threads; random weights\n\n" + "\n".join(parts)
        + f"\nA training step of 16 such pairs in float32 is {spread(step, unit='x')} as fast as torch's. "
        + made_by(results)
    )  # fmt: skip


def beside_torch(name: str, title: str, unit: str, scale: float) -> str:
    """One race of ours and torch, by seconds of a step."""
    results = read(name)
    rows = [
        [peer, spread(one["seconds"], scale), spread(one["ours_is_faster"], unit="x")]
        for peer, one in results["peers"].items()
    ]
    return f"**{title}\n\n{markdown(['', unit, 'tfxformer is faster by'], rows)}\n{made_by(results)}"


def generation() -> str:
    """Keras' generation beside torch's."""
    return beside_torch("generation", "Generation in Keras**, 64 tokens of SmolLM2-135M's shape, float32", "s", 1.0)


def decoder_training() -> str:
    """A small GPT from scratch beside torch."""
    return beside_torch("decoder_training", "Training a small GPT**, nanoGPT's CPU configuration", "ms", 1e3)


def loading() -> str:
    """Filling BERT-base beside the peers."""
    results = read("loading")
    rows = [
        [
            name,
            spread(peer["import_seconds"]),
            spread(peer["build_seconds"]),
            spread(peer["fill_seconds"]),
            spread(peer["fill_memory_over_file"]),
        ]
        for name, peer in results["peers"].items()
    ]
    header = ["", "import s", "build s", "fill s", "memory of the fill, x file"]
    size = f"{results['file_bytes'] / 1e6:.0f} MB"
    return f"**Loading BERT-base** ({size})\n\n{markdown(header, rows)}\n{made_by(results)}"


def records() -> str:
    """Preparing records beside tokenizing alone, and reading them beside training."""
    results = read("records")
    preparing = [
        [
            name,
            spread(one["megabytes_per_second"]),
            spread(one["ours_is_faster"], unit="x"),
            spread(one["ours_is_faster_by_processor"], unit="x"),
        ]
        for name, one in results["preparing"].items()
    ]
    reading = [
        [
            name,
            spread(one["rows_per_second"], digits=0),
            spread(one["rows_per_processor_second"], digits=0),
            spread(one["ours_is_faster"], digits=3, unit="x"),
        ]
        for name, one in results["reading"].items()
    ]
    header = ["", "MB/s", "time over the tokens alone", "by processor seconds"]
    other = ["", "rows/s", "rows a processor second", "time over a step on memory"]
    return (
        f"**Records**: {results['what']}\n\n{markdown(header, preparing)}\n{markdown(other, reading)}\n"
        f"{made_by(results)}"
    )


def tpu_check() -> str:
    """What a TPU's compiler says of two models."""
    rows, loads = [], []
    for case in read("tpu_check")["cases"].values():
        loads.append(case["machine"]["load_average"])
        train, large = case["steps"][0], case["oversize"]
        rows.append(
            [
                f"{case['model']}, {case['task']}, {case['sequence_length']} tokens",
                f"{case['largest_batch']} ({case['refused_batch']} refused)",
                f"{train['peak_bytes'] / 2**30:.2f} of {case['memory_bytes'] / 2**30:.2f} GiB",
                f"{train['flops']:.3g}",
                f"{train['compile_seconds']:.0f}",
                f"{case['search_seconds']:.0f}",
                f"{large['batch_size']}: {large['needed_bytes'] / 2**30:.2f} GiB",
            ]
        )
    header = ["", "largest batch", "peak", "FLOPs a step", "compile s", "search s", "refused, needs"]
    return (
        "**Training on one TPU v5e chip, as its compiler sees it** (nothing was run on a TPU; mixed_bfloat16, AdamW, "
        "dropout; masked-lm computes the logits of hidden places only)\n\n"
        f"{markdown(header, rows)}\n`python benchmarks/tpu_check.py`; the seconds on 2 cores shared with other work "
        f"(load average {min(loads):.0f} to {max(loads):.0f}).\n"
    )


def growth() -> str:
    """What it costs when one size grows."""
    results = read("growth")
    rows = [
        [
            row["road"],
            row["size"],
            f"{row['values'][0]:,} to {row['values'][-1]:,}",
            f"{row['seconds'][0]:.3g} to {row['seconds'][-1]:.3g}",
            " ".join(f"{power:.2f}" for power in row["powers"]),
            f"{row['most']:.0f}",
            "" if row["holds"] else "above",
        ]
        for row in results["table"]
    ]
    header = ["road", "size", "from, to", "s of the processor", "power, each time four times as large", "at most", ""]
    others = ", ".join(f"{name} {value:,}" for name, value in results["sizes"].items())
    return (
        f"**When one size grows**; else {others}\n\n{markdown(header, rows)}\n`{results['command']}`: the least of "
        f"three calls; {results['machine']['cores']} cores of {results['machine']['processor']}.\n"
    )


def start() -> str:
    """What a user waits for."""
    results = read("start")
    rows = [
        [part, f"{row['seconds']:.2f}", f"{row['processor_seconds']:.2f}", f"{row['goal']:g}"]
        for part, row in results["table"].items()
    ]
    header = ["", "s", "s of the processor, the whole process", "wanted, s"]
    machine = results["machine"]
    return (
        f"**What a user waits for**, each in a process that has imported nothing yet\n\n{markdown(header, rows)}\n"
        f"`{results['command']}`: medians of {results['rounds']} rounds; {machine['cores']} cores of "
        f"{machine['processor']}, load average {machine['load_average']:.0f}.\n"
    )


def main():
    """Writes every section whose results are there."""
    sections = {
        "bbc-topics": demo,
        "quality": model_tables.quality,
        "structured": model_tables.structured,
        "distillation": model_tables.distillation,
        "quantization": model_tables.quantization,
        "tuning": model_tables.tuning,
        "robust_tuning": model_tables.robust_tuning,
        "lora-*": model_tables.lora,
        "encoder": encoder,
        "training_step-*": training_step,
        "training_features-*": training_features,
        "decoder": decoder,
        "decoder-gemma3": lambda: decoder("decoder-gemma3"),
        "seq2seq": seq2seq,
        "generation": generation,
        "decoder_training": decoder_training,
        "loading": loading,
        "records": records,
        "start": start,
        "growth": growth,
        "tpu_check": tpu_check,
    }
    present = [make() for name, make in sections.items() if any(RESULTS.glob(f"{name}.json"))]
    present.insert(1, model_tables.shrunk())
    present.append(model_tables.explanations())
    report.update_section(PAGE, "\n" + "\n".join(present))


if __name__ == "__main__":
    main()
