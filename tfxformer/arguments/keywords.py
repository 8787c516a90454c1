"""The one way in which keywords, and arrays of a batch, that nothing takes are refused: by name, with the nearest one.

Keras' functional models drop every keyword that they do not know, so a typo or another library's word for an option
would change nothing and say nothing. Here each call knows what its `**kwargs` can become:

- `KnownKeywords` is the base of classes: their constructors take what an `__init__` of theirs or of their bases names.
- `checked` is for functions and methods that pass keywords on.
- `refuse_unknown` is what both say it with, and what is left to call where neither fits.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, overload

from tfxformer.arguments.other_names import INPUT_NAMES, OUR_WORDS

# What a functional keras.Model reads of its keywords beside inputs and outputs, and what any other reads.
FUNCTIONAL = ("name", "trainable")
SUBCLASSED = (*FUNCTIONAL, "dtype", "autocast", "activity_regularizer")


def refuse_unknown(given: Iterable[str], accepted: Iterable[str], owner: str) -> None:
    """Raises TypeError for keywords that are not among the accepted ones.

    Args:
        given: the keywords that came; one counts as said whatever its value is, None too.
        accepted: all that can be taken.
        owner: what was called, for the message.

    Raises:
        TypeError: naming each unknown keyword, our word for it or the nearest name, and all that there are.
    """
    accepted = list(dict.fromkeys(accepted))
    unknown = [name for name in given if name not in accepted]
    if unknown:
        said = ", ".join(f"{name!r}{_hint(name, accepted)}" for name in unknown)
        raise TypeError(f"{owner} takes no {said}. It takes {', '.join(accepted) or 'no keywords'}.")


def nearest(name: str, accepted: Iterable[str]) -> str | None:
    """Our word for what another library calls an option, or the nearest name; None where nothing is near.

    A name inside of a part of a config is found by its last part: "dropout" is near to "encoder__dropout".
    """
    accepted = list(accepted)
    by_last = {one.rpartition("__")[2]: one for one in reversed(accepted)}
    last = name.rpartition("__")[2]
    for word in (last, *OUR_WORDS.get(last, ())):
        ours, equals, value = word.partition("=")
        path = next((one for one in accepted if one.endswith(f"__{ours}")), None) if "__" in ours else by_last.get(ours)
        if path is not None and path != name:
            return f"{path}{equals}{value}"
    close = difflib.get_close_matches(name, accepted, n=1, cutoff=0.7)
    if close:
        return close[0]
    close = difflib.get_close_matches(last, by_last, n=1, cutoff=0.7)
    return by_last[close[0]] if close else None


def _hint(name: str, accepted: list[str]) -> str:
    found = nearest(name, accepted)
    return f" (did you mean {found}?)" if found else ""


def our_inputs(batch: Mapping, names: Mapping[str, str] = INPUT_NAMES) -> Mapping:
    """A batch by our names, of one by ours or by transformers'; the same object where nothing is to be renamed.

    `names` are transformers' names and ours of them.

    Raises:
        ValueError: for two names of one array, and for what is no mapping.
    """
    if not isinstance(batch, Mapping):
        raise ValueError(f"A batch is a dict of arrays by name (token_ids, padding_mask, ...), not {batch!r:.80}.")
    if not any(name in names for name in batch):
        return batch
    named = {}
    for name, value in batch.items():
        ours = names.get(name, name)
        if ours in named:
            raise ValueError(f"The batch has {ours!r} twice, once by transformers' name: {', '.join(batch)}. Give one.")
        named[ours] = value
    return named


def named_inputs(
    batch, wanted: Iterable[str], further: Iterable[str], owner: str, names: Mapping[str, str] = INPUT_NAMES
) -> dict:
    """What a model reads, by our names, of a batch by ours or by transformers'.

    Args:
        batch: mapping of name -> array or anything that stands for one.
        wanted: the names that must be there.
        further: those that may.
        owner: the model, for the message.
        names: transformers' names and ours of them.

    Raises:
        ValueError: naming what is missing, and what the model does not read; Keras would pair arrays and inputs by
            the order of their names. For what is no mapping.
    """
    wanted, further = list(wanted), list(further)
    if not isinstance(batch, Mapping):
        raise ValueError(
            f"{owner} takes a batch as a dict of {', '.join(wanted)}; got a {type(batch).__name__}. A task's encode "
            "makes one of texts, and its fit, evaluate and predict read texts themselves."
        )
    batch = our_inputs(batch, names)
    missing = [name for name in wanted if name not in batch]
    unknown = [name for name in batch if name not in wanted and name not in further]
    if missing or unknown:
        lacks = f"lacks {', '.join(missing)}" if missing else ""
        has = f"has {', '.join(map(str, unknown))}, which it does not read" if unknown else ""
        raise ValueError(
            f"The batch of {owner} {lacks}{' and ' if lacks and has else ''}{has}: wanted {', '.join(wanted)} (or "
            "transformers' names of them), int32 [B, S]."
        )
    return dict(batch)


class NamedInputs:
    """Put in front of a functional model whose inputs have names: it understands transformers' and refuses others.

    Done while the step is traced, so that a traced step costs nothing more and its graph is the same.
    """

    further_inputs: tuple[str, ...] = ()  # what a batch may have beside the inputs of the graph

    def __call__(self, inputs, *args, **kwargs):
        return super().__call__(self.named_inputs(inputs), *args, **kwargs)

    def named_inputs(self, batch) -> dict:
        """A batch by our names; ValueError names what is missing or not read."""
        return named_inputs(batch, self.input, self.further_inputs, type(self).__name__)


class KnownKeywords:
    """A base of classes that refuse, before anything is made, keywords which no `__init__` of theirs takes.

    What counts as taken is collected over the class and its bases, as far as each hands `**kwargs` on; a class with
    `keras_keywords` says what its last `super().__init__(**kwargs)` really reads. Subclasses need nothing of their own;
    one from outside of this package may take keywords out of its `**kwargs`, so only what it hands on is looked at.
    """

    keras_keywords: tuple[str, ...]

    def __new__(cls, *args, **kwargs):
        if kwargs and not _has_init_of_others(cls):
            refuse_unknown(kwargs, keywords_of(cls), cls.__name__)
        new = super().__new__
        return new(cls) if new is object.__new__ else new(cls, *args, **kwargs)


def keywords_of(cls: type, method: str = "__init__") -> tuple[str, ...]:
    """The keywords that a method of a class takes, with those of the bases that it hands `**kwargs` to."""
    found = {}
    for owner in cls.__mro__:
        function = vars(owner).get(method)
        if function is not None:
            function = getattr(function, "__func__", function)  # of a classmethod
            names, more = _parameters(function)
            found |= dict.fromkeys(names if isinstance(vars(owner)[method], staticmethod) else names[1:])
            if (to := getattr(function, "keywords_go_to", None)) is not None:
                return (*found, *(name for name in _keywords(to, cls) if name not in found))
            if not more:
                break
        if method == "__init__" and "keras_keywords" in vars(owner):
            found |= dict.fromkeys(owner.keras_keywords)
            break
    return tuple(found)


_Function = TypeVar("_Function", bound=Callable)


# For type checkers: with brackets and without. The docstring is that of the function itself.
@overload
def checked(function: _Function) -> _Function: ...
@overload
def checked(*, to=...) -> Callable[[_Function], _Function]: ...
def checked(function=None, *, to=None):
    """Makes a function or method that passes keywords on refuse those that nothing takes, before it does anything.

    Args:
        to: where its `**kwargs` go: None for the same method of the next class, the name of another method of the
            object ("__init__" for its constructor), or a function or class.
    """
    if function is None:
        return functools.partial(checked, to=to)
    names, _ = _parameters(function)
    is_method = bool(names) and names[0] in ("self", "cls")

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        said = [name for name in kwargs if not name.startswith("_")]  # Keras' own private arguments
        if said:
            refuse_unknown(said, accepted(args), called(args))
        return function(*args, **kwargs)

    def accepted(args) -> tuple:
        if is_method:
            return (*names[1:], *keywords_of(_class_of(args[0]), function.__name__))
        return (*names, *(() if to is None else _keywords(to, None)))

    def called(args) -> str:
        return f"{_class_of(args[0]).__name__}.{function.__name__}" if is_method else function.__qualname__

    wrapper.keywords_go_to = to
    return wrapper


def _has_init_of_others(cls: type) -> bool:
    """Whether an `__init__` that is none of ours stands in front of ours."""
    for owner in cls.__mro__:
        if owner.__module__.partition(".")[0] == "tfxformer":
            return False
        if "__init__" in vars(owner):
            return True
    return False


def _class_of(one) -> type:
    return one if isinstance(one, type) else type(one)


def _keywords(target, cls: type | None) -> tuple[str, ...]:
    """Those of what `checked(to=...)` names."""
    if isinstance(target, str):
        return keywords_of(cls, target)
    if isinstance(target, type):
        return keywords_of(target)
    names, more = _parameters(target)
    names = names[1:] if names[:1] == ["self"] else names
    further = getattr(target, "keywords_go_to", None)
    return (*names, *(_keywords(further, cls) if more and further is not None else ()))


@functools.lru_cache(maxsize=1024)  # asked for at every layer that is made, of few functions
def _parameters(function) -> tuple[tuple[str, ...], bool]:
    """The names that a function can be given by keyword, and whether it takes any others."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C: object.__init__
        return (), False
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = tuple(one.name for one in parameters if one.kind in by_name and not one.name.startswith("_"))
    return names, any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
