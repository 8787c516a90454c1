"""Commands, arguments and help, which answer before TensorFlow would have loaded; `actions` does the work."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tfxformer.cli import values

app = typer.Typer(
    name="tfxformer",
    help="From a Transformer checkpoint to a phone: fine-tune, prune, quantize, run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

MODEL_HELP = "A Hugging Face folder, a hub id (owner/name@v1 for a revision), or a .keras file."
LANGUAGE_HELP = "A Hugging Face folder, a hub id, a .keras, a .gguf, a .tflite or a .litertlm file of a language model."
RUNNABLE_HELP = "A Hugging Face folder, a hub id (owner/name@v1 for a revision), a .keras file, or a .tflite file."
DATA_HELP = "A .csv, .tsv or .jsonl file with the columns text, label and, for pairs, text_pair."

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
Runnable = Annotated[str, typer.Argument(metavar="MODEL", help=RUNNABLE_HELP)]
LanguageModel = Annotated[str, typer.Argument(metavar="MODEL", help=LANGUAGE_HELP)]
Data = Annotated[Path, typer.Argument(metavar="DATA", help=DATA_HELP)]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the result.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the texts.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts per step.")]
LearningRate = Annotated[
    float, typer.Option(callback=values.positive, help="Peak, after 10 % warmup; then linear to zero.")
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
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def run(action: str, options: dict) -> None:
    """Runs an action: its result to stdout, all else to stderr; an error is one line and exit code 1.

    A result may say itself, under "failure", why it is no success: it is shown, and that line and exit code 1 follow.

    Args:
        options: of the command, `locals()` there: "json" and "debug", and the action's arguments by their names.
    """
    json, debug = options.pop("json"), options.pop("debug")
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


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter texts: about 90 seconds.")] = False,
    output: Output = Path("saved_models/bbc-topics"),
    json: Json = False,
    debug: Debug = False,
):
    """MiniLM-L6 learns the topics of BBC news, is pruned and exported, and runs as .tflite on test texts."""
    run("demo", locals())


@app.command()
def finetune(
    model: Model,
    data: Data,
    output: Output,
    task: Annotated[str, typer.Option(help="What to learn.")] = "text-classification",
    labels: Annotated[str | None, typer.Option(help="Names, by commas (default: those in DATA, sorted).")] = None,
    problem_type: Annotated[
        str,
        typer.Option(help="Of classification: single_label_classification, multi_label_... or regression."),
    ] = "single_label_classification",
    epochs: Epochs = 3,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 5e-5,
    sequence_length: Length = None,
    validation: Validation = None,
    seed: Seed = 0,
    dtype: Dtype = None,
    json: Json = False,
    debug: Debug = False,
):
    """Train MODEL on DATA; write a Hugging Face folder, model.keras, results.json and a training curve."""
    run("finetune", {**locals(), "labels": labels.split(",") if labels else None})


@app.command()
def prune(
    model: Model,
    data: Data,
    output: Output,
    sparsity: Annotated[
        float, typer.Option(callback=values.share, help="Share of the kernels' weights to make zero.")
    ] = 0.5,
    epochs: Epochs = 2,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 5e-5,
    validation: Validation = None,
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
):
    """Go on training a fine-tuned MODEL on DATA while its smallest weights become zero."""
    run("prune", locals())


@app.command()
def compress(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE.yaml", help="What to try; see applications/shrink_sentiment.")
    ],
    output: Output,
    json: Json = False,
    debug: Debug = False,
):
    """Try ways to make a model small; write a table, plots, and the smallest file that is as good. Resumable."""
    run("compress", locals())


@app.command()
def evaluate(model: Runnable, data: Data, batch_size: BatchSize = 32, json: Json = False, debug: Debug = False):
    """Score MODEL on the labelled texts of DATA."""
    run("evaluate", locals())


@app.command()
def export(
    model: Model,
    file: Annotated[Path, typer.Argument(metavar="OUT.tflite", help="The file to write.")],
    quantization: Annotated[
        str, typer.Option(callback=values.quantization, help="float32, float16, dynamic_int8, int8, int16x8 or int4.")
    ] = "dynamic_int8",
    sequence_length: Length = None,
    sequence_lengths: Annotated[
        str | None, typer.Option(help="Several, by commas: one signature each, sharing the weights.")
    ] = None,
    representative: Annotated[
        Path | None,
        typer.Option(help="A data file that calibrates int8 and int16x8; its labels are not read."),
    ] = None,
    calibration: Annotated[
        str, typer.Option(help="How int8 chooses its ranges: min_max, percentile or mse.")
    ] = "min_max",
    float_layers: Annotated[int, typer.Option(min=0, help="Of int8: the most sensitive blocks to leave float32.")] = 0,
    accuracy_gate: Annotated[
        Path | None,
        typer.Option(help="A labelled data file: no file is written that scores over a point less than MODEL on it."),
    ] = None,
    cache_length: Annotated[
        int | None, typer.Option(min=1, help="Of a language model: tokens of prompt and answer (default: 1040).")
    ] = None,
    prefill_lengths: Annotated[
        str | None, typer.Option(help="Of a language model, by commas: tokens read at once (default: 16,128).")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(callback=values.positive, help="Largest relative error (default: the mode's own).")
    ] = None,
    json: Json = False,
    debug: Debug = False,
):
    """Write MODEL as a verified LiteRT file."""
    run("export", locals())


@app.command()
def predict(
    model: Runnable,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="The texts.")] = None,
    pair: Annotated[
        list[str] | None, typer.Option(help="The second text (context) of each TEXT; once for each.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A data file instead; its labels are not read.")] = None,
    json: Json = False,
    debug: Debug = False,
):
    """Run MODEL on texts."""
    pairs = {"texts": texts or [], "pairs": pair or None}
    run("predict", {"model": model, **pairs, "file": file, "json": json, "debug": debug})


@app.command()
def train_lm(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="A .txt file, or a .jsonl file with text, with prompt and answer, or with messages."
        ),
    ],
    output: Output,
    model: Annotated[
        str | None, typer.Option(help="Go on training this one: a folder, hub id, .gguf or .keras file.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Shape of a new model.")] = "gpt-nano",
    tokenizer: Annotated[str, typer.Option(help="Of a new model, learned from DATA: bpe or characters.")] = "bpe",
    vocabulary_size: Annotated[int, typer.Option(min=257, help="Tokens that bpe learns.")] = 4096,
    epochs: Epochs = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Blocks per step.")] = 8,
    learning_rate: Annotated[
        float | None, typer.Option(callback=values.positive, help="Peak; default 1e-3 for a new model, else 5e-5.")
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a block (default: the model's).")
    ] = None,
    validation: Validation = None,
    seed: Seed = 0,
    dtype: Dtype = None,
    json: Json = False,
    debug: Debug = False,
):
    """Train a language model on DATA: a new one, or MODEL; of prompts and chats it learns the answers."""
    run("train_lm", locals())


@app.command()
def generate(
    model: LanguageModel,
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    max_new_tokens: Tokens = 128,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    stop: Stop = None,
    seed: Draw = None,
    json: Json = False,
    debug: Debug = False,
):
    """Continue PROMPT, greedily or by chance; the text is shown as it comes."""
    run("generate", {**locals(), "write": None if json else _writer()})


@app.command()
def chat(
    model: LanguageModel,
    system: Annotated[str | None, typer.Option(help="What the model is told before the first message.")] = None,
    max_new_tokens: Tokens = 256,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    stop: Stop = None,
    seed: Draw = None,
    json: Json = False,
    debug: Debug = False,
):
    """Talk with MODEL, a line a message, until the input ends (Ctrl-D)."""
    run("chat", {**locals(), "write": None if json else _writer()})


def _writer():
    """Writes pieces of text to what is the standard output now; actions run with theirs redirected."""
    output = sys.stdout

    def write(piece: str) -> None:
        output.write(piece)
        output.flush()

    return write


Checked = Annotated[str, typer.Option("--model", help="A preset such as bert-base, a folder, hub id or .keras file.")]
CheckedTask = Annotated[str | None, typer.Option("--task", help="Such as masked-lm (default: the model's).")]
CheckedLength = Annotated[int, typer.Option("--sequence-length", min=1, help="Tokens per text.")]
CheckedDtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        callback=values.policy,
        help="Policy of training (default: mixed_bfloat16, or a .keras file's own).",
    ),
]
Accumulation = Annotated[int, typer.Option(min=1, help="Batches per update.")]
Checkpointing = Annotated[bool, typer.Option("--gradient-checkpointing", help="Recompute blocks in the backward pass.")]


@app.command()
def fit_estimate(
    model: Checked,
    task: CheckedTask = None,
    sequence_length: CheckedLength = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per step.")] = 32,
    dtype: CheckedDtype = None,
    gradient_accumulation_steps: Accumulation = 1,
    gradient_checkpointing: Checkpointing = False,
    memory_gib: Annotated[float | None, typer.Option(callback=values.positive, help="Of the GPU: does it fit?")] = None,
    json: Json = False,
    debug: Debug = False,
):
    """Estimate the memory of a training step on a GPU, from two compilers; no GPU is needed."""
    run("fit_estimate", locals())


@app.command()
def tpu_check(
    model: Checked,
    task: CheckedTask = None,
    topology: Annotated[
        str, typer.Option(help="Chips and their grid: v5e:1x1, v5e:2x2, v6e:1x1, ...; several share the batch.")
    ] = "v5e:1x1",
    sequence_length: CheckedLength = 128,
    batch_size: Annotated[
        str | None, typer.Option(help="Texts per step, or several by commas (default: search the largest that fits).")
    ] = None,
    dtype: CheckedDtype = None,
    gradient_accumulation_steps: Accumulation = 1,
    gradient_checkpointing: Checkpointing = False,
    search_seconds: Annotated[float, typer.Option(min=1, help="For the search.")] = 270.0,
    json: Json = False,
    debug: Debug = False,
):
    """Compile the train, eval and generate steps for a TPU, without one: do they fit, and the largest batch."""
    run("tpu_check", locals())


@app.command()
def prepare(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Text files (UTF-8), or .jsonl files.")],
    tokenizer: Annotated[str, typer.Option(help="A folder, a hub id, a .gguf file or a tokenizer.json.")],
    output: Output,
    sequence_length: Annotated[
        str, typer.Option(help="Tokens of a row; of masked rows several, by commas: a set of records each.")
    ] = "128",
    kind: Annotated[
        str, typer.Option(help="causal (texts packed into full blocks) or masked (a row for each text).")
    ] = "causal",
    documents: Annotated[
        str, typer.Option(help="What a text is: a line, a paragraph (between blank lines) or a whole file.")
    ] = "line",
    field: Annotated[str, typer.Option(help="The field of .jsonl files that holds the text.")] = "text",
    shards: Annotated[int, typer.Option(min=1, help="Files; best a multiple of the training's workers.")] = 8,
    beam: Annotated[
        str | None, typer.Option(help="Run as an Apache Beam job with these options, such as --runner=FlinkRunner.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
):
    """Tokenize texts into TFRecord files that training reads, shuffles and shares among workers."""
    run("prepare", locals())


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="A .tflite, .litertlm or .keras file, a folder or a hub id.")],
    json: Json = False,
    debug: Debug = False,
):
    """Look into a model: signatures, operators and sizes, or configuration, parameters and zeros."""
    run("inspect", locals())


def main() -> None:
    """The console script."""
    try:
        app()
    except SystemExit:  # all is said: what comes now is LiteRT, from C++, on what it takes down
        if "tfxformer.runtime.quiet" in sys.modules:
            sys.modules["tfxformer.runtime.quiet"].quiet_exit()
        raise
