"""The command train-seq2seq. See `actions`."""

from __future__ import annotations

from tfxformer.cli.language import fit, tell_languages
from tfxformer.data.files.rows import WRITES_TARGETS, read_rows

TRAINED_RATE, NEW_RATE = 5e-5, 1e-3  # peaks, of a model that has learned before and of one that has not


def train_seq2seq(
    data,
    output,
    model,
    preset,
    vocabulary_size,
    validation,
    seed,
    dtype,
    sequence_length,
    target_length,
    source_language,
    target_language,
    label_smoothing,
    learning_rate,
    columns,
    **training,
) -> dict:
    """Trains a model of sources and targets, a checkpoint's or a new one: the results and what was written."""
    rows = read_rows(data, WRITES_TARGETS, given=columns)
    from tfxformer.recipes.models import load_tasks, open_task

    load_tasks()
    import keras

    keras.utils.set_random_seed(seed)
    (sources, targets), held_out = _hold_out(rows, validation, seed, columns)
    lengths = {"sequence_length": sequence_length, "target_length": target_length, "label_smoothing": label_smoothing}
    if model is not None:
        task = open_task(model, "seq2seq-lm", **lengths, dtype=dtype)
    else:
        task = _new_model([*sources, *targets], preset, vocabulary_size, dtype, lengths)
    tell_languages(task, source_language, target_language)
    rate = learning_rate or (NEW_RATE if model is None else TRAINED_RATE)
    facts = ("sequence_length", "target_length")
    return fit(task, sources, targets, held_out, output, facts, learning_rate=rate, **training)


def _hold_out(rows, validation: str | None, seed: int, columns: dict):
    """((sources, targets), validation data or None)."""
    if validation is None:
        return (rows.texts, rows.labels), None
    try:
        share = float(validation)
    except ValueError:
        others = read_rows(validation, WRITES_TARGETS, given=columns)
        return (rows.texts, rows.labels), (others.texts, others.labels)
    from tfxformer.recipes.pipeline import hold_out

    return hold_out(rows.texts, rows.labels, share, seed, "--validation")


def _new_model(texts: list[str], preset: str, vocabulary_size: int, dtype, arguments: dict):
    """A model with random weights, and one tokenizer learned from sources and targets."""
    from tfxformer import models, tasks
    from tfxformer.text import Tokenizer

    config = models.preset(preset)
    if len(config.stacks) < 2:
        raise ValueError(
            f"The preset {preset!r} is {' '.join(config.stacks)} alone; a target is written for a source by an encoder "
            "with a decoder, such as transformer-mini."
        )
    learned = Tokenizer.train_byte_level_bpe(texts, vocabulary_size)
    config = config.replace(vocabulary_size=learned.vocabulary_size, padding_id=learned.padding_id)
    given = {name: value for name, value in arguments.items() if value is not None}
    return tasks.Seq2SeqLM(models.build(config, dtype=dtype), tokenizer=learned, **given)
