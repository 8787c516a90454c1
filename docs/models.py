"""Writes docs/models.md and tfxformer/recipes/zoo.json: presets, families and saved models, from what is measured.

    python docs/models.py [--count]

What a preset is for, where its weights come from and their licence stay as they are written in zoo.json; a new preset
is a row there. Parameters are counted where a row has none, or all anew with --count, which builds each preset without
its values.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
ZOO = ROOT / "tfxformer" / "recipes" / "zoo.json"
CARDS = ROOT / "saved_models"


def parameters(name: str) -> int:
    """The parameters of a preset, a decoder's output layer among them where it is no copy of the token table.

    No value is made, so that the largest is counted on any machine.
    """
    import keras
    from keras.src.backend.common import global_state

    import tfxformer

    with keras.StatelessScope():
        backbone = tfxformer.build(name)
        count = sum(math.prod(variable.shape) for variable in backbone.weights)
        # Keras would make the values where the scope ends.
        global_state.set_global_attribute("uninitialized_variables", [])
    return count + head(backbone.config)


def head(config) -> int:
    """The kernel of an output layer of its own."""
    decoder = config.stacks.get("decoder")
    return 0 if decoder is None or config.heads.tied else config.vocabulary_size * decoder.hidden_size


def presets(rows: list[dict], anew: bool) -> list[dict]:
    """The rows of all presets, in their order, with family and parameters.

    Raises:
        SystemExit: for a preset without a row, and a row without a preset.
    """
    from tfxformer.models import PRESETS

    known = {row["name"]: row for row in rows}
    if known.keys() != PRESETS.keys():
        raise SystemExit(f"zoo.json and the presets differ by {sorted(known.keys() ^ PRESETS.keys())}.")
    made = []
    for name, config in PRESETS.items():
        row = {**known[name], "family": config.family}
        if anew or "parameters" not in row:
            row["parameters"] = parameters(name)
        made.append(row)
    return made


def _letters(name: str) -> str:
    """A name of a family without what the table of coverage leaves out of some."""
    return re.sub(r"[-_]", "", name)


def families() -> list[dict]:
    """What is measured of each family: how near it is to transformers, and its files."""
    from tfxformer.checkpoints.families import FAMILIES

    text = (HERE / "coverage.md").read_text(encoding="utf-8").split("## Families", 1)[1].split("\n## ", 1)[0]
    errors = {_letters(name): (int(cases), float(error)) for name, cases, error in
              re.findall(r"^\| ([\w.-]+) \| (\d+) \| ([\d.e-]+) \|$", text, re.MULTILINE)}  # fmt: skip
    measured = json.loads((HERE / "files_of_families.json").read_text(encoding="utf-8"))["cases"].values()
    used = json.loads((ROOT / "tests" / "checkpoints" / "most_used.json").read_text(encoding="utf-8"))
    rows = []
    for name in FAMILIES:
        files = [case for case in measured if case["family"] == name and "float32" in case]
        most = sorted((one for one in used if one["model_type"] == name), key=lambda one: -one["millions"])
        rows.append(
            {
                "name": name,
                "cases": errors.get(_letters(name), (0, None))[0],
                "largest_error": errors.get(_letters(name), (0, None))[1],
                "file_float32": max((case["float32"] for case in files), default=None),
                "file_int8": max((case["int8"] for case in files), default=None),
                "checkpoints": [one["checkpoint"] for one in most[:3]],
            }
        )
    return rows


def sources() -> list[dict]:
    """The registry packages that bring weights."""
    from tfxformer.samples.catalogue import SAMPLES

    weights = ("minilm-l6", "smollm2", "flan-t5-small", "gemma3-270m-1", "monpa")
    return [
        {"name": name, "package": SAMPLES[name].requirement, "licence": SAMPLES[name].licence,
         "content": SAMPLES[name].content}
        for name in weights
    ]  # fmt: skip


def saved() -> list[dict]:
    """The models that are tracked in saved_models/."""
    rows = []
    for path in sorted(CARDS.glob("tiny-*/results.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        card = path.with_name("README.md").read_text(encoding="utf-8")
        kept = ("task", "bytes", "parameters", "scores", "example")
        title = re.search(r"^# (.+)$", card, re.MULTILINE)[1]
        licence = re.search(r"^license: (.+)$", card, re.MULTILINE)[1]
        rows.append(
            {"name": path.parent.name, "title": title, "licence": licence, **{key: results[key] for key in kept}}
        )
    return rows


def _table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _small(saved: list[dict]) -> str:
    """The section of the files in saved_models/; nothing where there are none."""
    small = [
        [f"`{row['name']}`", row["title"], row["task"], f"{row['bytes']:,}",
         "; ".join(f"{name} {value:.3f}" for name, value in row["scores"].items())]
        for row in saved
    ]  # fmt: skip
    text = f"""## Small files in the repository
Trained from nothing by `python saved_models/make.py`, each with a card, `saved_models/NAME/README.md`;
`tfxformer generate`, `predict` and `page` take `saved_models/NAME/NAME.tflite` from a bare clone.

{_table(["file", "what it does", "task", "bytes", "held-out scores"], small)}

"""
    return text if small else ""


def page(zoo: dict) -> str:
    """docs/models.md."""
    from tfxformer.recipes.zoo import in_words

    named = [
        [f"`{row['name']}`", in_words(row["parameters"]), row["family"], row["use"],
         f"`{row['hub']}`" if row["hub"] else "trained here",
         f"`samples.{row['samples']}()`" if row.get("samples") else None, row["licence"]]
        for row in zoo["presets"]
    ]  # fmt: skip
    known = [
        [row["name"], ", ".join(row["checkpoints"]), _error(row["largest_error"]), _error(row["file_float32"]),
         _error(row["file_int8"])]
        for row in zoo["families"]
    ]  # fmt: skip
    brought = [[row["content"], f"`{row['package']}`", row["licence"]] for row in zoo["samples"]]
    return f"""# Models

Written by `python docs/models.py`. In the terminal, `tfxformer models` shows the same, and `--json` gives all of it.

{_small(zoo["saved"])}## Presets
A preset is an architecture by name: `tfxformer.build("bert-small")` has random weights. Weights come from a Hugging
Face folder or hub id, by `from_pretrained(...)`; some from registry packages too, by `samples`. An int8 file has about
a byte a parameter (measured: `minilm-l6`, 23.8 MB). Licences are for orientation; what a checkpoint's own page says
counts.

{_table(["preset", "parameters", "family", "for", "weights", "package", "licence"], named)}

## Weights in registry packages
{_table(["what", "package", "licence"], brought)}

## Families
Any checkpoint whose config.json names one of these as `model_type` opens. "Most used" are those with the most downloads
of [coverage](coverage.md), which also says how the error was measured: the largest distance from transformers in
float32. The files' errors are relative, of the cases that [files of families](files_of_families.md) has measured.

{_table(["family", "most used", "largest error", "file, float32", "file, int8"], known)}
"""


def gather(anew: bool = False) -> dict:
    """The content of zoo.json as it should be now."""
    rows = json.loads(ZOO.read_text(encoding="utf-8"))["presets"]
    return {"presets": presets(rows, anew), "families": families(), "samples": sources(), "saved": saved()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="count the parameters of all presets anew")
    zoo = gather(parser.parse_args().count)
    ZOO.write_text(json.dumps(zoo, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (HERE / "models.md").write_text(page(zoo), encoding="utf-8")


if __name__ == "__main__":
    main()
