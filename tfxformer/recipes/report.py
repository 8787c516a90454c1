"""What a road left behind, for people: results.json, a table, a model card, a section of a README."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfxformer.files import write_json as write_json
from tfxformer.files import write_text

VARIANT_NAMES = {
    "keras": "Keras, dense",
    "keras-pruned": "Keras, pruned",
    "litert-float32": "LiteRT float32",
    "litert-float16": "LiteRT float16",
    "litert-dynamic_int8": "LiteRT int8",
    "litert-int4": "LiteRT int4",
    "litert-int4_block32": "LiteRT int4, blocks of 32",
}
BEGIN, END = "<!-- results: written by the code, do not edit -->", "<!-- end of results -->"


def table(results: dict) -> tuple[list[str], list[list[str]]]:
    """The variants as (header, rows) of strings."""
    score = results["main_score"]
    header = ["model", score.replace("_", " "), "size MB", "zip MB", "zeros", "ms a text"]
    rows = [
        [
            VARIANT_NAMES.get(name, name),
            f"{variant['scores'][score]:.3f}",
            f"{variant['bytes'] / 1e6:.1f}",
            f"{variant['zipped_bytes'] / 1e6:.1f}",
            f"{variant['sparsity']:.0%}",
            f"{variant['latency']['median_ms']:.1f}",
        ]
        for name, variant in results["variants"].items()
    ]
    return header, rows


def markdown_table(results: dict) -> str:
    """The variants as a Markdown table."""
    return markdown(*table(results))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(values: dict, key: str, form: str, scale: float = 1.0) -> str:
    """A number of a table, or nothing where it was not measured."""
    return format(values[key] * scale, form) if key in values else ""


def interval(values, rounds: int = 2000) -> list[float]:
    """The 95 % interval of a mean, by bootstraps of its values (the percentile method; Efron, 1979), seed 0.

    Args:
        values: a float for each text, such as 1.0 where it was answered right; or differences of two models' values.
        rounds: int, bootstraps.

    Returns:
        list: the lower and the upper end.
    """
    values = np.asarray(values, "float64")
    means = values[np.random.default_rng(0).integers(0, len(values), (rounds, len(values)))].mean(1)
    return np.percentile(means, [2.5, 97.5]).tolist()


def conditions(results: dict) -> str:
    """How the figures came about, in one paragraph."""
    settings, data, machine = results["settings"], results["data"], results["machine"]
    epochs = len(results["history"]["fine_tune"]["loss"])
    return (
        f"{data['train_texts']:,} training and {data['test_texts']:,} test texts, cut at "
        f"{settings['sequence_length']} tokens; {epochs} epochs of fine-tuning (peak learning rate "
        f"{settings['learning_rate']:g}, batch {settings['batch_size']}), {settings['prune_epochs']} of "
        f"pruning (peak {settings['prune_learning_rate']:g}); {settings['dtype'] or 'float32'}, "
        f"seed {settings['seed']}. "
        f"The whole run took {results['seconds']:.0f} s on {machine['cores']} cores of "
        f"{machine['processor']}, on {results['date']}. Times are medians of {settings['latency_rounds']} "
        "interleaved runs of one text, without tokenizing; zeros are those of the kernels; zip is deflate, "
        "what an app store ships."
    )


def section(results: dict) -> str:
    """Table and conditions as Markdown."""
    return f"{markdown_table(results)}\n\n{conditions(results)}\n"


def update_section(path: Path, content: str) -> None:
    """Puts `content`, such as `section(results)`, between the markers of a README.

    Raises:
        ValueError: where the file does not have both markers, in order.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no place for results: it wants the lines {BEGIN!r} and {END!r}.")
    write_text(path, f"{before}{BEGIN}\n{content}{END}{after}")


def model_card(results: dict, *, title: str, base_model: str, licence: str, data: str, limits: str) -> str:
    """A Hugging Face model card (README.md) of a folder that a road wrote.

    Args:
        title: str, what the model does.
        base_model: str, hub id of the checkpoint it began from.
        licence: str, of that checkpoint.
        data: str, the training data, in a sentence.
        limits: str, what it is not for.
    """
    name, variants = results["name"], results["variants"]
    files = "\n".join(
        f"- `{variant['file']}`: {VARIANT_NAMES.get(key, key)}" for key, variant in variants.items() if variant["file"]
    )
    smallest = min((v for v in variants.values() if v["file"]), key=lambda v: v["bytes"])["file"]
    labels = ", ".join(results["labels"])
    return f"""---
license: {licence}
base_model: {base_model}
pipeline_tag: {results["task"]}
library_name: transformers
tags: [tfxformer, keras, litert, pruned]
---
# {title}

{data} Labels: {labels}.

{section(results)}
## Files

- `config.json`, `model.safetensors`, `tokenizer.json`: the pruned model, for transformers and tfxformer
{files}

## Use

```python
import keras
import tfxformer.tasks
from tfxformer import export

export.LiteRTModel("{smallest}").predict(["..."])   # raw text in; tokenizer and labels are inside the file
keras.saving.load_model("{name}.keras").predict(["..."])
```

## Limits

{limits}
"""


def keep_results(results: dict, section: str, folder: Path, home: Path | None = None) -> None:
    """Prints a story's section, and writes what it measured as JSON.

    Args:
        results: ready for JSON.
        section: Markdown.
        folder: gets results.json.
        home: the story's own folder, which gets it too, and the section in its RESULTS.md; None for a quick run.
    """
    write_json(folder / "results.json", results)
    print(section)
    if home is not None:
        write_json(home / "results.json", results)
        update_section(home / "RESULTS.md", section)
