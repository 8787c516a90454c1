"""How a checkpoint says that it generates: generation_config.json, checked, and written as it was read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tfxformer.arguments import notices
from tfxformer.text.generation.sampling import that_count
from tfxformer.text.generation.token_rules import TokenRules

# What transformers' generate would do otherwise than we do, were it said: key -> whether a value says it.
_CHANGING: dict[str, Callable[[Any], bool]] = {
    "guidance_scale": lambda value: value != 1,
    "watermarking_config": bool,
    "token_healing": bool,
    "penalty_alpha": bool,
    "dola_layers": bool,
    "constraints": bool,
    "force_words_ids": bool,
    "max_time": bool,
    "num_beam_groups": lambda value: value != 1,
    "diversity_penalty": bool,
}
# Draws by chance that no sampler here makes: key -> whether a value says it.
_OTHER_DRAWS = {"top_h": bool, "epsilon_cutoff": bool, "eta_cutoff": bool}


@dataclass(frozen=True)
class GenerationConfig(TokenRules):
    """How a checkpoint generates, as plain values under transformers' names: `lm.generation_config`.

    The rules of `TokenRules`, the lengths and the stop strings count in every generation. How tokens are drawn (the
    fields from `do_sample` on) is offered, by `CausalLM.default_sampler()`, and not done unasked.

    Change it with `dataclasses.replace(lm.generation_config, min_new_tokens=5)`, for the model or for one call.

    Attributes:
        max_new_tokens: None, or the tokens of a text where the caller names no number.
        max_length: None, or those of prompt and text together, where `max_new_tokens` is None.
        stop_strings: texts before which a text ends.
        do_sample: whether tokens are drawn by chance.
        temperature, top_k, top_p, min_p, typical_p: how; None where the checkpoint does not say.
        num_beams, length_penalty, early_stopping: of a beam search.
        stated: the file as it was read, with keys that are none of these.

    Raises ValueError for a value of a wrong kind, by its name.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    stop_strings: tuple[str, ...] = ()
    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    stated: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            read = kind.read(value)
            if read is _WRONG:
                raise ValueError(f"{name}={value!r}: wanted {kind.wanted}.")
            object.__setattr__(self, name, read)

    @classmethod
    def from_dict(cls, stated: Mapping[str, Any], source: str = "generation_config.json") -> GenerationConfig:
        """What a generation_config.json says.

        Args:
            stated: its keys and values; null is what an absent key means.
            source: where it was read, for messages.

        Raises:
            ValueError: for a value of a wrong kind, naming source and key.
        """
        values = {name: stated[name] for name in _KINDS if stated.get(name) is not None}
        try:
            return cls(**values, stated=dict(stated))
        except ValueError as error:
            raise ValueError(f"{source} says {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """generation_config.json: as it was read, with what has been changed since."""
        written = dict(self.stated)
        for name, kind in _KINDS.items():
            value, default = getattr(self, name), _DEFAULTS[name]
            before = default if written.get(name) is None else kind.read(written[name])
            if before != value:
                written[name] = None if value == default else _plain(value)
        return {name: value for name, value in written.items() if value is not None or name in self.stated}

    @property
    def rules(self) -> TokenRules:
        """The part that changes logits."""
        return TokenRules(**{one.name: getattr(self, one.name) for one in dataclasses.fields(TokenRules)})

    def with_end(self, eos_id: int | None) -> GenerationConfig:
        """With the tokenizer's end token, where the checkpoint names none."""
        if self.eos_token_id or eos_id is None:
            return self
        return dataclasses.replace(self, eos_token_id=(eos_id,))

    def renumbered(self, new: Mapping[int, int]) -> GenerationConfig:
        """With the ids of a smaller vocabulary: `new` by the old ones; tokens that are gone are not spoken of."""

        def several(ids):
            return tuple(new[index] for index in ids if index in new)

        def whole(ids):
            return all(index in new for index in ids)

        stated = {name: value for name, value in self.stated.items() if name not in ("pad_token_id", "bos_token_id")}
        if stated.get("decoder_start_token_id") is not None:
            stated["decoder_start_token_id"] = new.get(stated["decoder_start_token_id"])
        return dataclasses.replace(
            self,
            eos_token_id=several(self.eos_token_id),
            forced_bos_token_id=new.get(self.forced_bos_token_id),
            forced_eos_token_id=several(self.forced_eos_token_id),
            suppress_tokens=several(self.suppress_tokens),
            begin_suppress_tokens=several(self.begin_suppress_tokens),
            bad_words_ids=tuple(several(ids) for ids in self.bad_words_ids if whole(ids)),
            sequence_bias=tuple((several(ids), bias) for ids, bias in self.sequence_bias if whole(ids)),
            stated=stated,
        )

    def ends_in(self, vocabulary_size: int) -> tuple[int, ...]:
        """The end tokens that a vocabulary has; configs of small models often name one that it has not."""
        return tuple(index for index in self.eos_token_id if index < vocabulary_size)

    def new_tokens(self, prompt_length: int, room: int, default: int) -> int:
        """How many tokens a text has at most, where the caller says nothing.

        Args:
            prompt_length: tokens of the longest prompt.
            room: tokens for which there is room.
            default: where the checkpoint says nothing either.

        Raises:
            ValueError: for a prompt as long as the checkpoint's `max_length`.
        """
        wanted = default
        if self.max_new_tokens is not None:
            wanted = self.max_new_tokens
        elif self.max_length is not None:
            wanted = self.max_length - prompt_length
            if wanted < 1:
                raise ValueError(
                    f"The checkpoint's max_length is {self.max_length} tokens, and the prompt has {prompt_length}: "
                    "pass max_new_tokens."
                )
        return max(1, min(wanted, room))

    def check(self, vocabulary_size: int, source: str = "generation_config") -> None:
        """Refuses ids that are not in the vocabulary, but for end tokens, and warns of what is not done here.

        Raises:
            ValueError: naming source, key and id.
        """
        for name in _ID_FIELDS:
            for index in _flat(getattr(self, name)):
                if index >= vocabulary_size:
                    raise ValueError(
                        f"{source} says {name} with the id {index}; the vocabulary has ids 0 to {vocabulary_size - 1}."
                    )
        said = [
            f"{name}={self.stated[name]!r}"
            for name, changes in _CHANGING.items()
            if self.stated.get(name) is not None and changes(self.stated[name])
        ]
        if said:
            notices.warn(
                f"{source} says {', '.join(said)}, which tfxformer does not do: transformers would generate other "
                "texts. It is kept, and written when the model is saved."
            )

    def sampling(self) -> dict[str, float | int]:
        """How tokens are drawn: temperature, top_k, top_p, min_p and typical_p, those that change anything.

        As transformers has it, `top_k` is 50 where nothing else is said.

        Raises:
            ValueError: for a way to draw that there is none for here.
        """
        others = [name for name, says in _OTHER_DRAWS.items() if says(self.stated.get(name))]
        if others:
            raise ValueError(
                f"The checkpoint draws tokens by {', '.join(f'{name}={self.stated[name]!r}' for name in others)}, for "
                "which there is no sampler: choose one of yours."
            )
        values = {
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_k": 50 if self.top_k is None else self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "typical_p": self.typical_p,
        }
        return that_count(values)


# ---- kinds of values ---------------------------------------------------------------------------------------------

_WRONG = object()


@dataclass(frozen=True)
class _Kind:
    """What a key may hold: how it is read (`_WRONG` where it cannot be), and what was wanted, for messages."""

    wanted: str
    read: Callable[[Any], Any]


def _is_number(value, least=-math.inf, most=math.inf) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most


def _count(least: int) -> Callable:
    def read(value):
        whole = _is_number(value, least) and value < math.inf and int(value) == value
        return int(value) if whole else _WRONG

    return read


def _optional(read: Callable) -> Callable:
    return lambda value: None if value is None else read(value)


def _number(least: float, most: float = math.inf, above: bool = False) -> Callable:
    def read(value):
        fits = _is_number(value, least, most) and math.isfinite(value) and not (above and value == least)
        return float(value) if fits else _WRONG

    return read


def _is_id(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _ids(value):
    """One id, or a list of them."""
    ids = [value] if isinstance(value, int) else value
    return tuple(ids) if isinstance(ids, (list, tuple)) and all(map(_is_id, ids)) else _WRONG


def _sequence(value):
    return _ids(value) if isinstance(value, (list, tuple)) and value else _WRONG


def _sequences(value):
    read = [_sequence(one) for one in value] if isinstance(value, (list, tuple)) else [_WRONG]
    return _WRONG if _WRONG in read else tuple(read)


def _biased(value):
    if not isinstance(value, (list, tuple)):
        return _WRONG
    read = []
    for pair in value:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            return _WRONG
        ids, bias = _sequence(pair[0]), pair[1]
        if ids is _WRONG or not _is_number(bias) or math.isnan(bias) or bias == math.inf:
            return _WRONG
        read.append((ids, float(bias)))
    return tuple(read)


def _decay(value):
    fits = isinstance(value, (list, tuple)) and len(value) == 2 and _is_id(value[0]) and _is_number(value[1], 0)
    return (value[0], float(value[1])) if fits and math.isfinite(value[1]) else _WRONG


def _strings(value):
    strings = (value,) if isinstance(value, str) else value
    fits = isinstance(strings, (list, tuple)) and all(isinstance(one, str) and one for one in strings)
    return tuple(strings) if fits else _WRONG


def _flag(value):
    return value if isinstance(value, bool) else _WRONG


_LIST = _Kind("ids of tokens, whole numbers of at least 0", _ids)
_MAYBE_LONG = _Kind("a whole number of at least 1, or null", _optional(_count(1)))
_SHARE = _Kind("a number of 0 to 1, or null", _optional(_number(0, 1)))
_KINDS: dict[str, _Kind] = {
    "eos_token_id": _Kind(
        "an id or a list of ids, whole numbers (a negative one for none)",
        lambda value: _ids([] if _is_number(value, most=-1) else value),
    ),
    "forced_bos_token_id": _Kind("an id, or null", lambda value: value if value is None or _is_id(value) else _WRONG),
    "forced_eos_token_id": _LIST,
    "suppress_tokens": _LIST,
    "begin_suppress_tokens": _LIST,
    "bad_words_ids": _Kind("a list of lists of ids", _sequences),
    "sequence_bias": _Kind("a list of [list of ids, number]", _biased),
    "min_length": _Kind("a whole number of at least 0", _count(0)),
    "min_new_tokens": _Kind("a whole number of at least 0", _count(0)),
    "repetition_penalty": _Kind("a number above 0 (1 for none)", _number(0, above=True)),
    "no_repeat_ngram_size": _Kind("a whole number of at least 0 (0 for none)", _count(0)),
    "exponential_decay_length_penalty": _Kind("[new tokens, factor], or null", _optional(_decay)),
    "max_new_tokens": _MAYBE_LONG,
    "max_length": _MAYBE_LONG,
    "stop_strings": _Kind("a text or a list of texts, none empty", _strings),
    "do_sample": _Kind("true or false", _flag),
    "temperature": _Kind("a number of at least 0, or null", _optional(_number(0))),
    "top_k": _Kind("a whole number of at least 0, or null", _optional(_count(0))),
    "top_p": _SHARE,
    "min_p": _SHARE,
    "typical_p": _SHARE,
    "num_beams": _Kind("a whole number of at least 1", _count(1)),
    "length_penalty": _Kind("a number", _number(-math.inf)),
    "early_stopping": _Kind('true, false or "never"', lambda value: value if value == "never" else _flag(value)),
}
_ID_FIELDS = (
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
)
_DEFAULTS = {one.name: one.default for one in dataclasses.fields(GenerationConfig) if one.name in _KINDS}
# Keys of a config.json that say how to generate: those that older checkpoints have there.
OLDER_KEYS = (*_KINDS, *_CHANGING, *_OTHER_DRAWS)


def _flat(value):
    """All ids of a field."""
    if value is None or isinstance(value, int):
        return () if value is None else (value,)
    return tuple(index for one in value for index in _flat(one))


def _plain(value):
    """A tuple as JSON has it."""
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
