"""The commands of models that write: train-lm, generate and chat. See `actions`, and `seq2seq`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tfxformer.cli import console
from tfxformer.data.files.language import read_language
from tfxformer.data.files.rows import WRITES_TARGETS, read_rows

TOKENIZERS = ("bpe", "characters")


def train_lm(
    data, output, model, preset, tokenizer, vocabulary_size, validation, seed, dtype, sequence_length, **training
) -> dict:
    """Trains a language model, a checkpoint's or a new one, on a text file: the results and what was written."""
    x, y = read_language(data)
    from tfxformer.recipes.models import load_tasks, open_task

    load_tasks()
    import keras

    keras.utils.set_random_seed(seed)
    (x, y), held_out = _hold_out(x, y, validation, seed)
    if model is not None:
        task = open_task(model, "causal-lm", sequence_length=sequence_length, dtype=dtype)
        rate = 5e-5
    else:
        task = _new_model(x, y, preset, tokenizer, vocabulary_size, sequence_length, dtype)
        rate = 1e-3
    training["learning_rate"] = training["learning_rate"] or rate
    return fit(task, x, y, held_out, output, **training)


def generate(
    model,
    prompt,
    file,
    num_beams,
    batch_size,
    max_new_tokens,
    stop,
    source_language,
    target_language,
    seed,
    columns,
    write: Callable | None,
    **sampling,
) -> dict:
    """Continues a prompt, or writes its target; `write` gets the text as it comes. Of a file, a target for each row."""
    if (prompt is None) == (file is None):
        raise ValueError("Give a text, or a data file with --file: one of the two.")
    if num_beams is not None and any(value is not None for value in (seed, *sampling.values())):
        raise ValueError("--num-beams searches, and draws nothing by chance: leave out the options of drawing.")
    opened = open_language_model(model)
    tell_languages(opened, source_language, target_language)
    if file is not None or num_beams is not None:
        options = {"max_new_tokens": max_new_tokens, "stop": stop or (), "seed": seed, **sampling}
        if file is not None:
            return {"model": model, "targets": _of_file(opened, file, columns, num_beams, batch_size, options)}
        pieces = _texts(opened, [prompt], num_beams, batch_size, options)
        return {"model": model, "prompt": prompt, **_written(pieces, "continuation", write)}
    pieces = _stream(opened, prompt, max_new_tokens, stop, seed, **sampling)
    return {"model": model, "prompt": prompt, **_written(pieces, "continuation", write)}


def chat(
    model, system, thinking, hide_reasoning: bool, max_new_tokens, stop, seed, write: Callable | None, **sampling
) -> dict:
    """Talks with a model: a line of the standard input a message, until it ends; the whole conversation."""
    from tfxformer.text.chat.reasoning import OPENING, answers_only, split_reasoning

    opened = open_language_model(model)
    if not is_causal(opened):
        raise ValueError(f"{model} writes one text for another, and has no conversations: tfxformer generate runs it.")
    messages = [] if system is None else [{"role": "system", "content": system}]
    variables = {} if thinking is None else {"enable_thinking": thinking}
    interactive = sys.stdin.isatty()
    while True:
        if interactive:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            break
        if not line.strip():
            continue
        messages.append({"role": "user", "content": line.strip()})
        ids = opened.chat_prompt(messages, **variables)
        # A turn ends with the tokenizer's end token, as in the `chat` of Python.
        pieces = opened.stream(
            ids, max_new_tokens, seed=seed, stop=[*(stop or ()), opened.tokenizer.eos_id], **sampling
        )
        begun = opened.tokenizer.decode([ids[-8:]])[0].rstrip().endswith(OPENING)
        if hide_reasoning:
            pieces = answers_only(pieces, begun)
        reasoning, answer = split_reasoning(_written(pieces, "content", write)["content"])
        thought = {} if reasoning is None else {"reasoning_content": reasoning}
        messages.append({"role": "assistant", "content": answer.strip(), **thought})
        if write is not None:
            write("\n")
    return {"model": model, "messages": messages, **({} if write is None else {"text": ""})}


def is_causal(model) -> bool:
    """Whether a model goes on with a text; else it writes one for another."""
    from tfxformer.data.evaluation import task_name

    return task_name(model) != WRITES_TARGETS


def open_language_model(model: str):
    """What has `stream`: a `tasks.CausalLM` or `tasks.Seq2SeqLM`, or the generator of a LiteRT file."""
    from tfxformer.recipes.models import is_litert, open_task

    if is_litert(model):
        from tfxformer.export import LiteRTGenerator

        return LiteRTGenerator(model)
    task = open_task(model)
    if task.task_name not in ("causal-lm", "seq2seq-lm"):
        raise ValueError(f"{model} is a model for {task.task_name}: it continues no text.")
    return task


def tell_languages(model, source: str | None, target: str | None) -> None:
    """Tells an opened model the languages of its sources and targets by their codes; None leaves them as they are.

    Raises:
        ValueError: for a code that the model does not know, a model of one language, and a file, which is of a pair.
    """
    given = {"source_language": source, "target_language": target}
    given = {name: code for name, code in given.items() if code is not None}
    if not given:
        return
    options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
    if not hasattr(model, "task_name"):
        raise ValueError(f"A LiteRT file is of the languages that it was exported with: leave {options} out.")
    if model.task_name != WRITES_TARGETS:
        raise ValueError(f"{options}: for models that write targets for sources; this one is for {model.task_name}.")
    from tfxformer.tasks.base.languages import check_languages

    check_languages(model.tokenizer, source, target)
    for name, code in given.items():
        setattr(model, name, code)


def _stream(model, prompt: str, max_new_tokens, stop, seed, **drawing):
    """The pieces of text after a prompt; greedy, where no way to draw is given."""
    return model.stream(prompt, max_new_tokens, seed=seed, stop=stop or (), **drawing)


def _written(pieces, name: str, write: Callable | None) -> dict:
    """The text of pieces; where it was written as it came, nothing is left to show but the end of the line."""
    text = ""
    for piece in pieces:
        text += piece
        if write is not None:
            write(piece)
    return {name: text, **({} if write is None else {"text": ""})}


def _of_file(model, file: Path, columns: dict, num_beams, batch_size: int, options: dict) -> list[dict]:
    """A target for each source of a data file, whose targets are not read."""
    if is_causal(model):
        raise ValueError("--file has sources, for which a model with an encoder writes targets; this one has none.")
    sources = read_rows(file, WRITES_TARGETS, labelled=False, given=columns).texts
    written = _texts(model, sources, num_beams, batch_size, options)
    return [{"source": source, "target": target} for source, target in zip(sources, written, strict=True)]


def _texts(model, prompts: list[str], num_beams: int | None, batch_size: int, options: dict) -> list[str]:
    """What a Keras task or the generator of a LiteRT file writes for each prompt."""
    if not hasattr(model, "task_name"):
        given = {name: value for name, value in {**options, "num_beams": num_beams}.items() if value is not None}
        return model.generate(prompts, **given)
    if num_beams is not None:
        from tfxformer.generation import Beams

        options = {**options, "sampler": Beams(num_beams)}
    return model.generate(
        prompts, batch_size=batch_size, verbose=console.verbose() if len(prompts) > 1 else 0, **options
    )


# ---- training -----------------------------------------------------------------------------------------------------


def _new_model(x, y, preset: str, tokenizer: str, vocabulary_size: int, sequence_length, dtype):
    """A model with random weights, and a tokenizer learned from the texts."""
    from tfxformer import models, tasks
    from tfxformer.data.targets.documents import is_conversations
    from tfxformer.text import Tokenizer

    if tokenizer not in TOKENIZERS:
        raise ValueError(f"Unknown tokenizer {tokenizer!r}; known: {', '.join(TOKENIZERS)}.")
    if is_conversations(x):
        raise ValueError("Conversations need a chat template: train a model that has one, with --model.")
    texts = [*x, *(y or [])]
    learned = (
        Tokenizer.characters("\n".join(texts))
        if tokenizer == "characters"
        else Tokenizer.train_byte_level_bpe(texts, vocabulary_size)
    )
    config = models.preset(preset)
    if "decoder" not in config.stacks:
        raise ValueError(f"The preset {preset!r} is an encoder; a language model needs a decoder, such as gpt-nano.")
    config = config.replace(vocabulary_size=learned.vocabulary_size, padding_id=learned.padding_id)
    return tasks.CausalLM(models.build(config, dtype=dtype), tokenizer=learned, sequence_length=sequence_length)


def _hold_out(x: list, y: list | None, validation: str | None, seed: int):
    """((x, y), validation data or None); of a single text the end is held out, of several a draw."""
    if validation is None:
        return (x, y), None
    try:
        share = float(validation)
    except ValueError:
        return (x, y), read_language(validation)
    if len(x) == 1 and y is None and isinstance(x[0], str):
        cut = round(len(x[0]) * (1 - share))
        return ([x[0][:cut]], None), ([x[0][cut:]], None)
    from tfxformer.recipes.pipeline import hold_out

    return hold_out(x, y, share, seed, "--validation")


def fit(task, x, y, held_out, output: Path, facts=("sequence_length",), **dials) -> dict:
    """Fits a new or an opened model and writes the folder; `facts` are attributes for the results."""
    from tfxformer.recipes import pipeline

    numbers = pipeline.fit(task, x, y, validation_data=held_out, verbose=console.verbose(), **dials)
    result = {
        "task": task.task_name,
        **{name: getattr(task, name) for name in facts},
        "vocabulary": task.tokenizer.vocabulary_size,
        "training_texts": len(x),
        "last_epoch": {name: values[-1] for name, values in numbers.items()},
    }
    return pipeline.write_fit(task, output, result, numbers)
