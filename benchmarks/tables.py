"""Writes docs/results.md from the results files, each with the command that made it.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from cells import RESULTS, made_by, markdown, read, spread

from tfxformer.recipes import report
from tfxformer.recipes.sweep import results as sweep

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
SHRUNK = HERE.parent / "applications" / "shrink_sentiment" / "results.json"
DELETION = HERE.parent / "applications" / "sentiment" / "deletion.json"


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
    return (
        f"**{title} on LiteRT**, batch 1, {results['threads']} threads\n\n" + "\n".join(parts)
        + f"\n{sizes}. {made_by(results)}"
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


def quality() -> str:
    """Fine-tuning beside torch, and what making it small costs."""
    results = read("quality")
    lost = results["points_lost"]
    rows = [
        [
            f"{'torch' if part == 'torch' else 'tfxformer'}, {name}",
            f"{found['mean_accuracy'][name]:.4f}",
            " ".join(f"{value:.4f}" for value in values),
            "" if name == "float32" else f"{lost[name]['mean']:.2f}",
        ]
        for part, found in results["parts"].items()
        for name, values in found["accuracy_by_seed"].items()
    ]
    seconds = [
        [
            part,
            *(
                ", ".join(f"{value:.0f}" for value in found[key])
                for key in ("seconds_by_seed", "processor_seconds_by_seed")
            ),
        ]
        for part, found in results["parts"].items()
    ]
    return (
        f"**Fine-tuning**: {results['what']}\n\n"
        f"{markdown(['', 'mean accuracy', 'by seed', 'points lost'], rows)}\n"
        f"{markdown(['fit of', 'seconds by seed', 'seconds of the processor'], seconds)}\n"
        f"`{results['command']}`: {results['test_sentences']} test sentences, standard error of one accuracy "
        f"{results['standard_error_points']:.2f} points; {results['machine']['cores']} cores of "
        f"{results['machine']['processor']}, load average {results['machine']['load_average']:.1f} at the start.\n"
    )


def shrunk() -> str:
    """What the sweep of a recipe came to."""
    found = json.loads(SHRUNK.read_text(encoding="utf-8"))
    return (
        "**The smallest sentiment file** (`tfxformer compress applications/shrink_sentiment/recipe.yaml`)\n\n"
        f"{sweep.conclusion(found)} All {len(found['points'])} points are in "
        "[RESULTS.md](../applications/shrink_sentiment/RESULTS.md).\n"
    )


def structured() -> str:
    """What half the heads and neurons are worth."""
    results = read("structured")
    rows = [
        [
            f"{race['task']}, {race['mode']}",
            spread(race["models"]["dense"]["seconds"], 1e3),
            spread(race["models"]["small"]["seconds"], 1e3),
            spread(race["models"]["dense"]["ours_is_faster"], unit="x"),
            f"{race['models']['dense']['bytes'] / 1e6:.1f} to {race['models']['small']['bytes'] / 1e6:.1f}",
        ]
        for race in results["races"]
    ]
    header = ["a text of 128 tokens", "whole, ms", "half, ms", "faster by", "file, MB"]
    return (
        f"**Half of the heads and feed-forward neurons of MiniLM-L6 removed**, LiteRT, {results['threads']} threads\n\n"
        f"{markdown(header, rows)}\n{made_by(results)}"
    )


def distillation() -> str:
    """A student with and without its teacher."""
    results = read("distillation")
    rows = [
        [
            name,
            f"{results['parameters'][name] / 1e6:.1f}",
            f"{statistics.mean(values):.4f}",
            " ".join(f"{value:.4f}" for value in values),
            f"{results['kept_of_the_teacher'][name]:.1%}" if name in results["kept_of_the_teacher"] else "",
        ]
        for name, values in results["accuracy_by_seed"].items()
    ]
    header = ["", "million parameters", "mean accuracy", "by seed", "of the teacher's"]
    return (
        f"**Distillation**: {results['what']}\n\n{markdown(header, rows)}\n"
        f"`{results['command']}`: {results['labelled_texts']} labelled sentences, {results['test_sentences']} to test; "
        f"{results['machine']['cores']} cores of {results['machine']['processor']}.\n"
    )


def tuning() -> str:
    """Few labels, with a search for settings and without one."""
    results = read("tuning")
    rows = [
        [
            name,
            ", ".join(f"{dial.replace('_', ' ')} {value:.4g}" for dial, value in results["settings"][name].items()),
            f"{statistics.mean(values):.4f}",
            " ".join(f"{value:.4f}" for value in values),
        ]
        for name, values in results["accuracy_by_seed"].items()
    ]
    return (
        f"**Search for settings**: {results['what']}\n\n"
        f"{markdown(['', 'setting', 'mean accuracy', 'by seed'], rows)}\n"
        f"`{results['command']}`: {results['test_sentences']} test sentences, none of them read by the search, under "
        f"seeds that it has not seen; the search took {results['seconds_of_the_search']['processor_seconds']:.0f} s of "
        f"processor time on {results['machine']['cores']} cores of {results['machine']['processor']}.\n"
    )


def lora() -> str:
    """LoRA beside full fine-tuning."""
    parts = []
    for path in sorted(RESULTS.glob("lora-*.json")):
        results = read(path.stem)
        full, accuracy = results["peak_bytes"]["full"], results["accuracy"]
        rows = [
            [
                method,
                f"{accuracy['runs'][method][0]['share']:.2%}",
                spread(step["times_full"], unit="x"),
                f"{results['peak_bytes'][method] / full:.2f}x",
                f"{accuracy['mean_accuracy'][method]:.4f}",
                " ".join(f"{run['accuracy']:.4f}" for run in accuracy["runs"][method]),
            ]
            for method, step in results["steps"].items()
        ]
        header = ["", "trained", "time of a step", "peak memory", "mean accuracy", "by seed"]
        parts.append(
            f"**LoRA**: {results['what']}; accuracy on VADER movie snippets after {results['sentences']} sentences\n\n"
            f"{markdown(header, rows)}\n{made_by(results)}"
        )
    return "\n".join(parts)


def quantization() -> str:
    """Full-integer files, and training for them."""
    results = read("quantization")
    names = {
        "float32": "Keras, float32",
        "dynamic_int8": "dynamic_int8",
        "min_max": "int8, calibrated",
        "percentile": "int8, ranges cut at a percentile",
        "mse": "int8, ranges of least squared error",
        "mixed": "int8, the most sensitive layers float",
        "aware": "int8, after quantization-aware training",
    }
    rows = [
        [
            names.get(name, name),
            f"{one['accuracy']:.4f}",
            " ".join(f"{value:.4f}" for value in one["accuracy_by_seed"]),
            f"{one['bytes'] / 1e6:.1f}" if "bytes" in one else "",
            f"{one['error']:.3f}" if "error" in one else "",
        ]
        for name, one in results["files"].items()
    ]
    return (
        f"**Quantization**: {results['what']}\n\n"
        f"{markdown(['', 'mean accuracy', 'by seed', 'MB', 'relative error'], rows)}\n"
        f"`{results['command']}`: {results['test_sentences']} test sentences; {results['machine']['cores']} cores of "
        f"{results['machine']['processor']}.\n"
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


def explanations() -> str:
    """Whether explanations name the words that count."""
    found = json.loads(DELETION.read_text(encoding="utf-8"))
    rows = []
    for name, one in found["methods"].items():
        gap = one.get("integrated_gradients_is_lower_by")
        low, high = gap["interval"] if gap else (None, None)
        lower = "" if gap is None else f"{gap['mean']:.3f} ({low:.3f} to {high:.3f})"
        rows.append([name.replace("_", " "), f"{one['area']:.3f}", lower])
    header = ["words taken out by", "area under the label's probability", "integrated gradients is lower by"]
    return (
        f"**Explanations** of {found['texts']} film reviews: up to half of the words are taken out, the largest "
        f"weights first; the lower the area, the better the words were chosen (in brackets 95 % intervals)\n\n"
        f"{markdown(header, rows)}\n`{found['command']}`, {found['machine']}, {found['date']}\n"
    )


def main():
    """Writes every section whose results are there."""
    sections = {
        "bbc-topics": demo,
        "quality": quality,
        "structured": structured,
        "distillation": distillation,
        "quantization": quantization,
        "tuning": tuning,
        "lora-*": lora,
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
        "tpu_check": tpu_check,
    }
    present = [make() for name, make in sections.items() if any(RESULTS.glob(f"{name}.json"))]
    present.insert(1, shrunk())
    present.append(explanations())
    report.update_section(PAGE, "\n" + "\n".join(present))


if __name__ == "__main__":
    main()
