"""Sections of docs/results.md on what models are worth: quality, what makes them small, searches, explanations."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from cells import RESULTS, made_by, markdown, read, spread

from tfxformer.recipes.sweep import results as sweep

APPLICATIONS = Path(__file__).parent.parent / "applications"
SHRUNK = APPLICATIONS / "shrink_sentiment" / "results.json"
DELETION = APPLICATIONS / "sentiment" / "deletion.json"


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


def robust_tuning() -> str:
    """Options for few labels, and for one task after another."""
    results = read("robust_tuning")
    few = [
        [
            f"`{setting}`" if "(" in setting else setting,
            f"{statistics.mean(row['accuracy_by_seed']['right']):.4f}",
            " ".join(f"{value:.4f}" for value in row["accuracy_by_seed"]["right"]),
            _points(row["points_won_by_seed"]["right"]),
            f"{statistics.mean(row['processor_seconds']):.0f}",
        ]
        for setting, row in results["few_labels"].items()
    ]
    after = [
        [
            f"`{setting}`" if "(" in setting else setting,
            *(f"{statistics.mean(row['accuracy_by_seed'][kind]):.4f}" for kind in ("before", "after", "new")),
            " ".join(f"{value:.4f}" for value in row["accuracy_by_seed"]["after"]),
        ]
        for setting, row in results["forgetting"].items()
    ]
    pseudo = next(row for row in results["few_labels"].values() if "wrongly" in row)
    sure, wrong = sum(pseudo["pseudo_labelled"]), sum(pseudo["wrongly"])
    return (
        f"**Few labels**: {results['what']}; {results['labelled_texts']} labelled VADER movie snippets, "
        f"{results['test_texts']} to test\n\n"
        f"{markdown(['', 'mean accuracy', 'by seed', 'points beside plain', 'processor seconds'], few)}\n"
        "Points: the mean of the differences by seed and its standard error. Changed texts double the steps, as twice "
        f"the epochs do. Of {sure} pseudo-labels over all seeds {wrong} were wrong ({wrong / max(1, sure):.1%}).\n\n"
        f"**One task after another**: the topics {', '.join(results['old_topics'])}, then "
        f"{' and '.join(results['new_topics'])}, {results['texts_of_a_topic']} BBC articles each\n\n"
        f"{markdown(['', 'old topics before', 'old topics after', 'new topics', 'old after, by seed'], after)}\n"
        f"`{results['command']}`, {results['machine']['cores']} cores of {results['machine']['processor']}.\n"
    )


def _points(values: list[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:+.1f} ± {statistics.stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else f"{mean:+.1f}"


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
