"""Writes the results of README.md from the results files, each with the command that made it.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
from pathlib import Path

from tfxformer.recipes import report

HERE = Path(__file__).parent
README = HERE.parent / "README.md"


def read(name: str) -> dict:
    """A results file."""
    return json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def made_by(results: dict) -> str:
    """The command, the rounds and the processor, in a line."""
    machine = results["machine"]
    return (
        f"`{results['command']}`: {results['rounds']} interleaved rounds, quartiles in brackets; "
        f"{machine['cores']} cores of {machine['processor']}.\n"
    )


def spread(values: dict, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
    """A median with its quartiles."""
    middle, low, high = (values[key] * scale for key in ("median", "low_quartile", "high_quartile"))
    return f"{middle:.{digits}f}{unit} ({low:.{digits}f}-{high:.{digits}f})"


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
    """Training beside the peers."""
    results = read("training_step")
    rows = [
        [name, f"{peer['tokens_per_second']:,.0f}", spread(peer["ours_is_faster"], unit="x")]
        for name, peer in results["peers"].items()
    ]
    table = markdown(["", "tokens/s", "tfxformer is faster by"], rows)
    return f"**Training of MiniLM-L6**, {results['what']}\n\n{table}\n{made_by(results)}"


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


def quality() -> str:
    """Fine-tuning beside torch, and what making it small costs."""
    results = read("quality")
    rows = [
        [f"{framework}, {name}", f"{found['mean_accuracy'][name]:.4f}", " ".join(f"{value:.4f}" for value in values)]
        for framework, found in results["frameworks"].items()
        for name, values in found["accuracy_by_seed"].items()
    ]
    seconds = "; ".join(
        f"{framework} {', '.join(f'{value:.0f}' for value in found['seconds_by_seed'])} s"
        for framework, found in results["frameworks"].items()
    )
    return (
        f"**Fine-tuning**: {results['what']}\n\n{markdown(['', 'mean accuracy', 'by seed'], rows)}\n"
        f"`{results['command']}`: {results['test_sentences']} test sentences, standard error of one accuracy "
        f"{results['standard_error_points']:.2f} points; a fit took {seconds}; {results['machine']['cores']} cores of "
        f"{results['machine']['processor']}.\n"
    )


def main():
    """Writes every section whose results are there."""
    sections = {
        "bbc-topics": demo,
        "quality": quality,
        "encoder": encoder,
        "training_step": training_step,
        "loading": loading,
    }
    present = [make() for name, make in sections.items() if (HERE / "results" / f"{name}.json").is_file()]
    report.update_section(README, "\n" + "\n".join(present))


if __name__ == "__main__":
    main()
