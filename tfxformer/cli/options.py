"""What commands share: the options that several have, and how an action is run and its result shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tfxformer.cli import values

MODEL_HELP = "A Hugging Face folder, a hub id (owner/name@v1 for a revision), or a .keras file."
LANGUAGE_HELP = "A Hugging Face folder, a hub id, a .keras, a .gguf, a .tflite or a .litertlm file of a language model."
RUNNABLE_HELP = "A Hugging Face folder, a hub id (owner/name@v1 for a revision), a .keras file, or a .tflite file."
DATA_HELP = (
    "A .csv, .tsv, .jsonl, .json or .parquet file with the columns text, label and, for pairs, text_pair (source and "
    "target of a model that writes one text for another), or with usual names of them: sentence1, premise, tokens, "
    "ner_tags, spans, question, context, answers, score, document, summary, ... Also SQuAD's JSON; .conll, .bio and "
    ".conllu files; a folder of .txt files for each label."
)
PAIRS_HELP = "A file as those of finetune, with the columns source and target (or document and summary, ...)."

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
Runnable = Annotated[str, typer.Argument(metavar="MODEL", help=RUNNABLE_HELP)]
Writing = Annotated[str, typer.Argument(metavar="MODEL", help=LANGUAGE_HELP)]
Data = Annotated[Path, typer.Argument(metavar="DATA", help=DATA_HELP)]
TextColumn = Annotated[str | None, typer.Option(help="The column of texts, of words, of questions or of sources.")]
PairColumn = Annotated[str | None, typer.Option(help="The column of second texts, or of contexts.")]
LabelColumn = Annotated[str | None, typer.Option(help="The column of labels, of answers, of scores or of targets.")]
COLUMNS = ("text_column", "pair_column", "label_column")
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the result.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the texts.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts per step.")]
LearningRate = Annotated[
    float, typer.Option(callback=values.positive, help="Peak, after 10 % warmup; then linear to zero.")
]
Warmup = Annotated[
    float | None,
    typer.Option(callback=values.warmup, help="Share of steps in which the rate rises (default: 0.1)."),
]
WeightDecay = Annotated[float | None, typer.Option(min=0, help="Of kernels and embeddings (default: 0.01).")]
EarlyStopping = Annotated[
    int | None,
    typer.Option(min=1, help="Stop after so many epochs without a better --monitor; the best epoch's weights stay."),
]
Monitor = Annotated[
    str,
    typer.Option(callback=values.monitor, help="Of --early-stopping: val_loss, val_accuracy, ..."),
]
Length = Annotated[int | None, typer.Option(min=1, help="Tokens per text (default: the model's, or by the texts).")]
Validation = Annotated[
    str | None,
    typer.Option(
        callback=values.held_out, help="A data file, or a share of DATA such as 0.1, to validate on after each epoch."
    ),
]
Seed = Annotated[int, typer.Option(help="Of new weights, order and dropout.")]
Dtype = Annotated[str | None, typer.Option(callback=values.policy, help="Policy of training, such as mixed_bfloat16.")]
Tokens = Annotated[int, typer.Option(min=1, help="New tokens at most.")]
Stop = Annotated[list[str] | None, typer.Option(help="A text to end before; may be given several times.")]
Draw = Annotated[int | None, typer.Option("--seed", help="Of the draw (default: another one each time).")]
Temperature = Annotated[
    float | None, typer.Option(callback=values.positive, help="Below 1 safer, above 1 more surprising.")
]
TopK = Annotated[int | None, typer.Option(min=1, help="Draw from the K most probable tokens.")]
TopP = Annotated[
    float | None, typer.Option(callback=values.probability, help="Draw from the fewest tokens with this probability.")
]
MinP = Annotated[
    float | None,
    typer.Option(callback=values.probability, help="Draw from tokens this probable, in shares of the best."),
]
SourceLanguage = Annotated[
    str | None,
    typer.Option(help="Code of the language of sources, where MODEL knows several (default: the checkpoint's)."),
]
TargetLanguage = Annotated[
    str | None, typer.Option(help="Code of the language that targets are written in (default: the checkpoint's).")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def run(action: str, options: dict) -> None:
    """Runs an action: its result to stdout, all else to stderr; an error is one line and exit code 1.

    A result may say itself, under "failure", why it is no success: it is shown, and that line and exit code 1 follow.

    Args:
        options: of the command, `locals()` there: "json" and "debug", and the action's arguments by their names.
    """
    json, debug = options.pop("json"), options.pop("debug")
    if any(name in options for name in COLUMNS):
        options["columns"] = {name.removesuffix("_column"): options.pop(name, None) for name in COLUMNS}
    # Said before TensorFlow is imported, for this process only: the library touches no environment.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tfxformer.cli import actions, console

    try:
        with console.everything_to_stderr():
            result = getattr(actions, action)(**options)
    except KeyboardInterrupt:
        sys.exit(console.fail("interrupted", 130))
    except Exception as error:
        if debug:
            raise
        sys.exit(console.fail(console.one_line(error), 1))
    failure = result.pop("failure", None)
    console.show(action, result, json)
    if failure is not None:
        sys.exit(console.fail(failure, 1))


def checked_on(mesh: str | None) -> None:
    """Before Keras is imported: a mesh is JAX's, and what is compiled for other chips needs none here.

    For this process only, and what the user has set stays.
    """
    if mesh is not None and "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "jax")
    if os.environ.get("KERAS_BACKEND") == "jax":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def writer():
    """Writes pieces of text to what is the standard output now; actions run with theirs redirected."""
    output = sys.stdout

    def write(piece: str) -> None:
        output.write(piece)
        output.flush()

    return write
