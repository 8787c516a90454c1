"""The commands of models that write: their arguments and help. `language` and `seq2seq` do the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfxformer.cli import values
from tfxformer.cli.options import (
    PAIRS_HELP,
    BatchSize,
    Debug,
    Draw,
    Dtype,
    Epochs,
    Json,
    LabelColumn,
    MinP,
    Output,
    Seed,
    SourceLanguage,
    Stop,
    TargetLanguage,
    Temperature,
    TextColumn,
    Tokens,
    TopK,
    TopP,
    Validation,
    Writing,
    run,
    writer,
)

Rate = Annotated[
    float | None, typer.Option(callback=values.positive, help="Peak; default 1e-3 for a new model, else 5e-5.")
]
Smoothing = Annotated[
    float | None,
    typer.Option(callback=values.share, help="Share of each target that all tokens have (default: the model's)."),
]
Vocabulary = Annotated[int, typer.Option(min=257, help="Tokens that bpe learns.")]


def train_lm(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A .txt file, a folder of them, or a .jsonl, .json, .parquet or .csv file with text, with prompt and "
            "answer (or instruction and output), or with messages.",
        ),
    ],
    output: Output,
    model: Annotated[
        str | None, typer.Option(help="Go on training this one: a folder, hub id, .gguf or .keras file.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Shape of a new model.")] = "gpt-nano",
    tokenizer: Annotated[str, typer.Option(help="Of a new model, learned from DATA: bpe or characters.")] = "bpe",
    vocabulary_size: Vocabulary = 4096,
    epochs: Epochs = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Blocks per step.")] = 8,
    learning_rate: Rate = None,
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


def train_seq2seq(
    data: Annotated[Path, typer.Argument(metavar="DATA", help=PAIRS_HELP)],
    output: Output,
    model: Annotated[
        str | None,
        typer.Option(help="Go on training this one: a folder or hub id of a T5, BART, ..., or a .keras file."),
    ] = None,
    preset: Annotated[str, typer.Option(help="Shape of a new model.")] = "transformer-mini",
    vocabulary_size: Vocabulary = 4096,
    epochs: Epochs = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step.")] = 32,
    learning_rate: Rate = None,
    label_smoothing: Smoothing = None,
    sequence_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a source (default: the model's, or by the texts).")
    ] = None,
    target_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a target (default: the model's, or by the texts).")
    ] = None,
    source_language: SourceLanguage = None,
    target_language: TargetLanguage = None,
    validation: Validation = None,
    seed: Seed = 0,
    dtype: Dtype = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    json: Json = False,
    debug: Debug = False,
):
    """Train a model that writes a target for each source of DATA: a new one, or MODEL."""
    run("train_seq2seq", locals())


def generate(
    model: Writing,
    prompt: Annotated[str | None, typer.Argument(help="The text to continue, or the source of a target.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A data file instead, with a column source: a target is written for each.")
    ] = None,
    num_beams: Annotated[
        int | None, typer.Option(min=2, help="Search for the most probable text with so many beams.")
    ] = None,
    batch_size: BatchSize = 32,
    max_new_tokens: Tokens = 128,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    stop: Stop = None,
    source_language: SourceLanguage = None,
    target_language: TargetLanguage = None,
    seed: Draw = None,
    text_column: TextColumn = None,
    json: Json = False,
    debug: Debug = False,
):
    """Continue PROMPT, or write its target, greedily, by chance or by beams; the text is shown as it comes."""
    run("generate", {**locals(), "write": None if json else writer()})


def chat(
    model: Writing,
    system: Annotated[str | None, typer.Option(help="What the model is told before the first message.")] = None,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Of a model whose template has the switch.")
    ] = None,
    hide_reasoning: Annotated[
        bool, typer.Option("--hide-reasoning", help="Show the answer without what stands in <think>.")
    ] = False,
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
    run("chat", {**locals(), "write": None if json else writer()})
