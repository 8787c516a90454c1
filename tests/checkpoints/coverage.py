"""Writes docs/coverage.md: which of the checkpoints that people use most open here, and with which error.

    python tests/checkpoints/coverage.py

Needs the extra [reference]. Each row of most_used.json names a case of `make_fixtures` or `seq2seq_cases`: a tiny
random checkpoint of that architecture by transformers, with the switches of the released one. Embedders are put
into a folder by sentence-transformers, with the pooling and the modules of the released one; vectors are compared.
Ends with an error where a row that is said to open does not. Takes ten minutes on two idle cores.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # `test_families`
sys.path.insert(0, str(Path(__file__).parent.parent))  # `make_fixtures`, `tiny`

import make_fixtures
import numpy as np
import seq2seq_cases
import test_families
import tiny

from tfxformer import tasks
from tfxformer.checkpoints.families import FAMILIES

HERE = Path(__file__).parent
TARGET = HERE.parent.parent / "docs" / "coverage.md"
SEQ2SEQ = "seq2seq "
LIMIT = 1e-4
TEXTS = ["good film", "the bad dog sat on the mat and a very good cat ran fast", "a"]
REFUSED = {
    "gemma4": "layers that share keys and values, and inputs of each layer's own",
    "gpt_oss": "a mixture of experts",
}
PAGE = """\
# Which checkpoints open

`python tests/checkpoints/coverage.py` makes a tiny random checkpoint of each architecture by transformers
{transformers} (of embedders a folder by sentence-transformers {sentence_transformers}) with the switches of the
released one, opens it here and compares all hidden states, logits or vectors with torch's in float32. No released
weights were downloaded for it. Downloads are rough millions a month of 2026, most of them estimated by size class.

**{opened} of {count} open, {share:.1%} of the downloads; the largest error is {worst:.1e}** (of values of a few units).
Any other checkpoint opens if the `model_type` in its config.json is one of these families, else it is refused by name.

## Families
{families}

## The checkpoints that are used most
{table}
"""


def error_of(name: str, folder: Path, tokenizer) -> float:
    """The largest error of a case."""
    if name.startswith(SEQ2SEQ):
        model = seq2seq_cases.reference(name.removeprefix(SEQ2SEQ))
        model.save_pretrained(folder)
        lm = tasks.Seq2SeqLM.from_pretrained(folder)
        inputs = seq2seq_cases.batch(lm.backbone.config.padding_id)
        return float(np.abs(np.asarray(lm(inputs)) - seq2seq_cases.results(model, inputs)["logits"]).max())
    folder, inputs, results = make_fixtures.make(name, folder)
    return float(test_families.check_results(name, test_families.open_case(name, folder, tokenizer), inputs, results))


def error_of_vectors(row: dict, folder: Path, tokenizer) -> float:
    """The largest error of an embedder's vectors, with and without a prompt."""
    import torch
    from sentence_transformers import SentenceTransformer, models

    encoder, _, _ = make_fixtures.make(row["case"], folder / "encoder")
    config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
    config |= row.get("config", {})
    (encoder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer.save_pretrained(encoder)
    said = row["embedder"]
    arguments = {"attn_implementation": "eager"}
    modules = [models.Transformer(str(encoder), max_seq_length=12, model_args=arguments)]
    width = modules[0].get_word_embedding_dimension()
    modules.append(models.Pooling(width, said["pooling"]))
    if said["dense"]:
        activation = {"linear": torch.nn.Identity(), "tanh": torch.nn.Tanh()}[said["dense"]]
        modules.append(models.Dense(width, 10, bias=said["dense"] == "tanh", activation_function=activation))
    if said["normalize"]:
        modules.append(models.Normalize())
    prompts = {"query": "good cat ", "document": "a very "} if said["prompts"] else None
    reference = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
    reference.save(str(folder / "embedder"))
    model = tasks.TextEmbedder.from_pretrained(folder / "embedder")
    names = [None, "query"] if prompts else [None]
    pairs = [(model.predict(TEXTS, prompt_name=n, verbose=0), reference.encode(TEXTS, prompt_name=n)) for n in names]
    return max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)


def markdown(head: list[str], rows: list) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def family_of(case: str) -> str:
    if case.startswith(SEQ2SEQ):
        return seq2seq_cases.CASES[case.removeprefix(SEQ2SEQ)][0].lower()
    return make_fixtures.CASES[case].family


def main():
    import sentence_transformers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    rows = json.loads((HERE / "most_used.json").read_text(encoding="utf-8"))
    errors, lines, opened = {}, [], []
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        tokenizer = tiny.tokenizer(place)

        def measured(key, function, *arguments):
            if key not in errors:
                errors[key] = function(*arguments, place / str(len(errors)), tokenizer)
                print(f"{key}: {errors[key]:.1e}", flush=True)
            return errors[key]

        for row in rows:
            error = None
            if "embedder" in row:
                key = json.dumps([row["case"], row["embedder"], row.get("config")])
                error = measured(key, error_of_vectors, row)
            elif row["case"]:
                error = measured(row["case"], error_of, row["case"])
            if error is not None:
                opened.append(row)
            said = f"{error:.1e}" if error is not None else f"refused: {REFUSED[row['model_type']]}"
            lines.append([row["checkpoint"], row["class"], row["model_type"], row["size"], row["millions"], said])
        every = [*make_fixtures.CASES, *(SEQ2SEQ + name for name in seq2seq_cases.CASES)]
        for name in every:
            measured(name, error_of, name)
    worst = max(errors.values())
    families = {}
    for name in every:
        families.setdefault(family_of(name), []).append(errors[name])
    text = PAGE.format(
        transformers=transformers.__version__,
        sentence_transformers=sentence_transformers.__version__,
        opened=len(opened),
        count=len(rows),
        share=sum(row["millions"] for row in opened) / sum(row["millions"] for row in rows),
        worst=worst,
        families=markdown(
            ["family", "cases", "largest error"], [[f, len(e), f"{max(e):.1e}"] for f, e in families.items()]
        ),
        table=markdown(["checkpoint", "kind", "model_type", "size", "millions a month", "largest error"], lines),
    )
    TARGET.write_text(text, encoding="utf-8")
    if worst > LIMIT:
        sys.exit(f"A case differs by {worst:.1e}.")
    assert len(families) <= len(FAMILIES)


if __name__ == "__main__":
    main()
