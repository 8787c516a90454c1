"""The text side of generation: prompts to ids, new ids to text, and where a text stops."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import keras

from tfxformer import generation
from tfxformer.generation import GenerationConfig
from tfxformer.generation.processors import check_processors
from tfxformer.text import Tokenizer
from tfxformer.text.generation.stopping import Stops, read_stops
from tfxformer.text.generation.streaming import Writer
from tfxformer.text.inputs import as_list, check_one_prompt, check_prompt, prompt_ids
from tfxformer.training.inputs.given import check_counts

PIECE = 4  # tokens between two looks at the text


def read_prompts(tokenizer: Tokenizer | None, prompts) -> list[list[int]]:
    """Prompts (texts, or lists of ids as they are) as lists of ids.

    A text gets the begin token where the tokenizer writes one; an empty text is the begin token alone.

    Raises:
        TypeError, ValueError: for a single text, for messages, and for an empty text where there is no begin token.
    """
    rows = []
    for index, prompt in enumerate(as_list(prompts, "prompts")):
        if not isinstance(prompt, str):
            check_prompt(prompt, f"prompts[{index}]")
            rows.append(prompt)
            continue
        if tokenizer is None:
            raise ValueError("This model has no tokenizer, so it cannot read texts: give lists of ids.")
        ids = prompt_ids(tokenizer, prompt)
        if not ids:
            raise ValueError(f"prompts[{index}] is empty, and the tokenizer has no begin token: give it some text.")
        rows.append(ids)
    return rows


def writing_tokenizer(model) -> Tokenizer | None:
    """The tokenizer of what a model writes, or None."""
    return None if model.tokenizer is None else model.tokenizer.of_targets


def read_settings(model, given: GenerationConfig | Mapping | None, processors=()) -> GenerationConfig:
    """How a model generates: its checkpoint's settings, or those given in their place.

    Args:
        model: `CausalLM` or `Seq2SeqLM`.
        given: None, or what one call wants instead of `model.generation_config`.
        processors: the caller's; a `RepetitionPenalty` among them counts instead of the checkpoint's.
    """
    vocabulary = model.backbone.config.vocabulary_size
    settings = model.generation_config if given is None else as_generation_config(given, vocabulary)
    writes = writing_tokenizer(model)
    settings = model.settings_of_call(settings).with_end(None if writes is None else writes.eos_id)
    if any(isinstance(one, generation.RepetitionPenalty) for one in processors):
        settings = dataclasses.replace(settings, repetition_penalty=1.0)
    return settings


def as_generation_config(given, vocabulary_size: int) -> GenerationConfig:
    """Settings as a user gives them: a `GenerationConfig`, a dict of its keys, or None for none; checked.

    Raises:
        TypeError, ValueError: for what is none of these, and ids that are not in the vocabulary.
    """
    if given is None:
        return GenerationConfig()
    if isinstance(given, Mapping):
        given = GenerationConfig.from_dict(given, "generation_config")
    if not isinstance(given, GenerationConfig):
        raise TypeError(f"generation_config is a generation.GenerationConfig or a dict of its keys, not {given!r}.")
    given.check(vocabulary_size)
    return given


NUMBERS = ("temperature", "top_k", "top_p", "min_p")  # what a sampler is made of
# Options of `generate`; all others that `chat` is given are variables of the chat template.
OPTIONS = (
    *(*NUMBERS, "sampler", "seed", "processors", "speculation", "stop_ids", "cache_length", "jit_compile"),
    "generation_config",
)


def split_options(options: dict) -> tuple[dict, dict]:
    """What `chat` is given: options of `generate`, and variables of the chat template."""
    chosen = {name: value for name, value in options.items() if name in OPTIONS}
    return chosen, {name: value for name, value in options.items() if name not in OPTIONS}


class Request(NamedTuple):
    """What `CausalLM.generate` and its like are asked for.

    Attributes:
        prompts: texts or lists of ids; one of them where one is continued.
        max_new_tokens: int or None.
        default: new tokens, where neither caller nor checkpoint says how many.
        stop: strings or ids, besides the checkpoint's.
        generation_config: in place of the model's, or None.
        options: of `generation.generate`.
    """

    prompts: object
    max_new_tokens: int | None
    default: int
    stop: object
    generation_config: object
    options: dict


def read_request(model, request: Request) -> tuple[list, int, Stops, dict]:
    """A request with the checkpoint's settings under it: prompts as ids, new tokens, stops, options of `generation`."""
    options = dict(request.options)
    processors = check_processors(options.pop("processors", ()))
    settings = read_settings(model, request.generation_config, processors)
    rows, read = model.read_prompts(request.prompts)
    new = request.max_new_tokens
    longest = max((len(row) for row in rows), default=0)
    most = model.backbone.longest_cached
    if new is None:
        new = settings.new_tokens(longest, most - longest, request.default)
    if most < longest + new <= model.backbone.longest_text:
        raise ValueError(
            f"A prompt of {longest} tokens and {new} new ones: this model turns the keys of texts beyond {most} tokens "
            "by other angles (LongRoPE), so that all that were kept would have to be computed again, which is not "
            "implemented. Shorten the prompt, or ask for fewer new tokens; reading and scoring longer texts is exact."
        )
    rules = () if settings.rules.change_nothing else (settings.rules,)
    given = options.pop("stop_ids", ())
    ends = (*settings.ends_in(model.backbone.config.vocabulary_size), *([given] if isinstance(given, int) else given))
    stops = read_stops(writing_tokenizer(model), request.stop, ends, settings.stop_strings)
    return rows, new, stops, {**options, **read, "processors": (*rules, *processors), "stop_ids": stops.ids}


def generate(
    model, request: Request, num_return_sequences: int = 1, batch_size: int | None = None, verbose: int | str = 0
) -> list[str]:
    """See `CausalLM.generate`."""
    if batch_size is None:
        return _together(model, request, num_return_sequences)
    check_counts(batch_size=batch_size)
    prompts, seed = as_list(request.prompts, "prompts"), request.options.get("seed")
    # The longest first: what has no room has none at once.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    texts: list = [None] * len(prompts)
    bar = keras.utils.Progbar(len(prompts), verbose=1 if verbose == "auto" else verbose, unit_name="text")
    for start in range(0, len(prompts), batch_size):
        rows = order[start : start + batch_size]
        # The last batch is filled up with its last prompt: each number of rows is compiled once.
        filled = [*rows, *rows[-1:] * (min(batch_size, len(prompts)) - len(rows))]
        options = request.options if seed is None else {**request.options, "seed": seed + start}
        part = request._replace(prompts=[prompts[row] for row in filled], options=options)
        found = _together(model, part, num_return_sequences)
        for place, row in enumerate(rows):
            texts[row] = found[place * num_return_sequences : (place + 1) * num_return_sequences]
        bar.update(start + len(rows))
    return [text for copies in texts for text in copies]


def _together(model, request: Request, num_return_sequences: int = 1) -> list[str]:
    tokenizer = model._tokenizer().of_targets
    rows, new, stops, options = read_request(model, request)
    writers = [Writer(tokenizer, row, stops) for row in rows for _ in range(num_return_sequences)]
    options["num_return_sequences"] = num_return_sequences
    beams = isinstance(options.get("sampler"), generation.Beams)
    if stops.strings and options.get("speculation") is None and not beams:
        options.pop("speculation", None)
        pieces = generation.stream(model, rows, new, **options)  # may end as soon as all have stopped
    else:
        pieces = iter([generation.generate(model, rows, new, **options)])
    texts = [""] * len(writers)
    for piece in pieces:
        for index, (writer, ids) in enumerate(zip(writers, piece, strict=True)):
            texts[index] += writer.feed(ids)
        if all(writer.stopped for writer in writers):
            break
    return [text + writer.end() for text, writer in zip(texts, writers, strict=True)]


def stream(model, request: Request) -> Iterator[str]:
    """See `CausalLM.stream`."""
    tokenizer = model._tokenizer().of_targets
    check_one_prompt(request.prompts)
    rows, new, stops, options = read_request(model, request._replace(prompts=[request.prompts]))
    pieces = generation.stream(model, rows, new, **{"piece_length": PIECE, **options})
    return Writer(tokenizer, rows[0], stops).written(row for (row,) in pieces)
