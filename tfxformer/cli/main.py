"""Commands, arguments and help, which answer before TensorFlow would have loaded; `actions` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tfxformer import __version__
from tfxformer.cli import values, writing
from tfxformer.cli.options import (
    BatchSize,
    Data,
    Debug,
    Dtype,
    EarlyStopping,
    Epochs,
    Json,
    LabelColumn,
    LearningRate,
    Length,
    Model,
    Monitor,
    Output,
    PairColumn,
    Runnable,
    Seed,
    SourceLanguage,
    TargetLanguage,
    TextColumn,
    Validation,
    Warmup,
    WeightDecay,
    checked_on,
    run,
)

app = typer.Typer(
    name="tfxformer",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"tfxformer {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
):
    """From a Transformer checkpoint to a phone: fine-tune, prune, quantize, run."""


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
    warmup: Warmup = None,
    weight_decay: WeightDecay = None,
    sequence_length: Length = None,
    validation: Validation = None,
    early_stopping: EarlyStopping = None,
    monitor: Monitor = "val_loss",
    seed: Seed = 0,
    dtype: Dtype = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
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
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
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
def tune(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to try; see docs/training/tuning.md.")],
    output: Output,
    json: Json = False,
    debug: Debug = False,
):
    """Search for settings of finetune on held-out texts; write a table, a plot and the best one's line. Resumable."""
    run("tune", locals())


@app.command()
def evaluate(
    model: Runnable,
    data: Data,
    batch_size: BatchSize = 32,
    source_language: SourceLanguage = None,
    target_language: TargetLanguage = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    json: Json = False,
    debug: Debug = False,
):
    """Score MODEL on the labelled texts of DATA, or on its sources and targets (with the extra [metrics])."""
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
        int | None,
        typer.Option(min=1, help="Of a model that writes: tokens of prompt and answer (default: 1040) or of a target."),
    ] = None,
    prefill_lengths: Annotated[
        str | None, typer.Option(help="Of a language model, by commas: tokens read at once (default: 16,128).")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(callback=values.positive, help="Largest relative error (default: the mode's own).")
    ] = None,
    source_language: SourceLanguage = None,
    target_language: TargetLanguage = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
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
    entities: Annotated[bool, typer.Option("--entities", help="Of a tagger: entities, not labels.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Of a classifier: what each word adds.")] = False,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    json: Json = False,
    debug: Debug = False,
):
    """Run MODEL on texts."""
    pairs = {"texts": texts or [], "pairs": pair or None}
    columns = {"text_column": text_column, "pair_column": pair_column}
    options = {"model": model, **pairs, "file": file, "entities": entities, "explain": explain, **columns}
    run("predict", {**options, "json": json, "debug": debug})


@app.command()
def page(
    file: Annotated[
        Path,
        typer.Argument(metavar="MODEL.tflite", help="A file of a task, or a .litertlm bundle."),
    ],
    output: Output,
    packages: Annotated[
        Path | None, typer.Option(help="A node_modules folder with the page's packages (default: npm fetches them).")
    ] = None,
    json: Json = False,
    debug: Debug = False,
):
    """Write a static web page that runs the file in the browser: classify, tag, search, answer or generate."""
    run("page", locals())


for command in (writing.train_lm, writing.train_seq2seq, writing.generate, writing.chat):
    app.command()(command)


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
Mesh = Annotated[str | None, typer.Option(help="On JAX: how all chips are used, (data)x(model) such as 8x1 or 1x8.")]


@app.command()
def fit_estimate(
    model: Checked,
    task: CheckedTask = None,
    sequence_length: CheckedLength = 128,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Texts per step (default: search for --gpu or --memory-gib, else 32).")
    ] = None,
    dtype: CheckedDtype = None,
    gradient_accumulation_steps: Accumulation = 1,
    gradient_checkpointing: Checkpointing = False,
    mesh: Mesh = None,
    memory_gib: Annotated[float | None, typer.Option(callback=values.positive, help="Of the GPU: does it fit?")] = None,
    gpu: Annotated[str | None, typer.Option(help="The GPU by its name, such as t4, l4, a100-40 or h100.")] = None,
    json: Json = False,
    debug: Debug = False,
):
    """Estimate the memory of a training step on a GPU, from two compilers; no GPU is needed."""
    checked_on(mesh)
    run("fit_estimate", locals())


@app.command()
def tpu_check(
    model: Checked,
    task: CheckedTask = None,
    topology: Annotated[
        str, typer.Option(help="Chips and their grid: v5e:1x1, v5e:2x2, v6e:1x1, ...; several share the batch.")
    ] = "v5e:1x1",
    mesh: Mesh = None,
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
    checked_on(mesh)
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
        str,
        typer.Option(help="causal (texts packed into full blocks), masked (a row each) or pieces (to be denoised)."),
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


@app.command("app")
def write_app(
    model: Annotated[Path, typer.Argument(metavar="MODEL.tflite", help="A file that export has written.")],
    platform: Annotated[str, typer.Option(callback=values.platform, help="android or ios.")],
    output: Output,
    text: Annotated[
        list[str] | None, typer.Option(help="A text to compare answers on, besides some; may be given several times.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
):
    """Write a small Android or iOS app around MODEL, with Python's answers to test it against."""
    run("write_app", {"model": model, "platform": platform, "output": output, "texts": text or [], "json": json,
                      "debug": debug})  # fmt: skip


@app.command()
def models(
    json: Json = False,
    debug: Debug = False,
):
    """List presets with size, use, weights and licence, the small saved models, and families."""
    run("models", locals())


@app.command()
def doctor(
    json: Json = False,
    debug: Debug = False,
):
    """Say what is installed, which devices are seen, and whether a second of work on each runs."""
    run("doctor", locals())


def main() -> None:
    """The console script."""
    try:
        app()
    except SystemExit:  # all is said: what comes now is LiteRT, from C++, on what it takes down
        if "tfxformer.runtime.quiet" in sys.modules:
            sys.modules["tfxformer.runtime.quiet"].quiet_exit()
        raise
