"""What users pass as texts, made plain lists of str, or refused with the way out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

TRUNCATIONS = ("longest_first", "only_first", "only_second")


def as_list(values: Iterable, name: str) -> list:
    """A plain list of a list, tuple, array, column (pandas, polars, pyarrow, ...) or other iterable of examples.

    Raises:
        TypeError: for one text, for several columns, for a set, which has no order, and for what holds nothing.
    """
    if type(values) is list:  # before the questions that a list answers with no, one after another
        return values.copy()
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{name} must be a list, got one {type(values).__name__}: pass [{name}].")
    if isinstance(values, Set):
        raise TypeError(
            f"{name} must be a list, got a {type(values).__name__}, which has no order: pass one column as a list."
        )
    columns = _columns(values)
    if columns is not None:  # going through one gives its names, or its rows as dicts
        named = ", ".join(map(repr, columns[:8]))
        rows = ", or rows of numbers, data.to_numpy()" if name == "labels" and hasattr(values, "to_numpy") else ""
        raise TypeError(
            f"{name} must be a list, got a {type(values).__name__} with {named or 'no columns'}: pass one column as a "
            f"list, such as data[{columns[0] if columns else name!r:.40}]{rows}."
        )
    if hasattr(values, "numpy") and hasattr(values, "dtype"):  # a tensor of TensorFlow or PyTorch
        ragged = hasattr(values, "to_list")
        values = _decoded(values.to_list() if ragged else values.numpy().tolist(), name)
    for to_python in ("tolist", "to_pylist", "to_list"):  # Python values, not numpy's and pyarrow's scalars
        if hasattr(values, to_python):
            values = getattr(values, to_python)()
            break
    if not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list, got {type(values).__name__}.")
    return list(values)


def _columns(values) -> list | None:
    """The names of what has several columns: dicts, data frames, tables, `datasets.Dataset`; None for anything else."""
    if isinstance(values, Mapping):
        return list(values)
    for attribute in ("column_names", "columns"):
        if (names := getattr(values, attribute, None)) is not None and not callable(names):
            return list(names)
    return None


def _decoded(value, name: str):
    """Strings of tensors, which are bytes there, as str."""
    if isinstance(value, list):
        return [_decoded(part, f"{name}[{index}]") for index, part in enumerate(value)]
    if isinstance(value, bytes):
        return text_of(value, name)
    return value


def text_of(value: bytes, where: str) -> str:
    """A string of TensorFlow as str; ValueError names one that is not UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 at byte {error.start} ({value[:20]!r}...): decode it first.") from error


def is_missing(value) -> bool:
    """Whether a value of a column stands for none: None, NaN, pandas' NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value


def as_texts(values: Iterable, name: str = "texts") -> list[str]:
    """A plain list of str; TypeError names the first element that is none."""
    texts = as_list(values, name)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(_refusal(text, f"{name}[{index}]"))
    return texts


def as_words(values: Iterable, name: str = "texts") -> list[list[str]]:
    """A plain list of lists of str, one list of words for each text."""
    return [as_texts(words, f"{name}[{index}]") for index, words in enumerate(as_list(values, name))]


def check_prompt(prompt: object, name: str) -> None:
    """Refuses what is neither one text nor one list of ids, by saying what it is.

    Raises:
        TypeError: naming what came and what to call for it.
    """
    wanted = "wanted a text, or a list of ids of tokens"
    parts = prompt if isinstance(prompt, (list, tuple)) else ()
    if isinstance(prompt, str):
        return
    if isinstance(prompt, Mapping) or any(isinstance(part, Mapping) for part in parts):
        raise TypeError(
            f"{name} holds messages of a conversation: pass them to chat(messages), or chat_prompt(messages)."
        )
    if isinstance(prompt, (bytes, bytearray)):
        raise TypeError(_refusal(prompt, name))
    if any(isinstance(part, (str, list, tuple)) for part in parts):
        raise TypeError(f"{name} is itself a {type(prompt).__name__} of several: {wanted}.")
    if not hasattr(prompt, "__len__"):
        raise TypeError(f"{name} is {type(prompt).__name__} ({prompt!r}): {wanted}.")


def prompt_ids(tokenizer, text: str) -> list[int]:
    """The ids of a prompt to be continued, [] for an empty one without a begin token.

    Without the end token that some tokenizers write after every text: nothing comes after the end. An empty text is
    the begin token alone.

    Args:
        tokenizer: `text.Tokenizer`.
        text: str.
    """
    (ids,) = tokenizer.ids([text])
    if len(ids) > 1 and ids[-1] == tokenizer.eos_id:
        ids = ids[:-1]
    return [tokenizer.bos_id] if not ids and tokenizer.bos_id is not None else ids


def check_one_prompt(prompt: object) -> None:
    """`check_prompt` for what continues one prompt only; TypeError for a list of them."""
    if isinstance(prompt, (list, tuple)) and any(isinstance(part, (str, list, tuple)) for part in prompt):
        raise TypeError(f"One prompt is continued here, not a {type(prompt).__name__} of {len(prompt)}: pass one text.")
    check_prompt(prompt, "prompt")


def _refusal(text: object, where: str) -> str:
    if is_missing(text):
        return f"{where} is {type(text).__name__} ({text!r}), not str: it is missing; drop the row, or write its text."
    if isinstance(text, (bytes, bytearray)):
        return f'{where} is {type(text).__name__}, not str: decode it first, as in text.decode("utf-8").'
    if isinstance(text, (list, tuple)):
        return (
            f"{where} is a {type(text).__name__}, not str: for words pass is_split_into_words=True, "
            "for text pairs pass the second texts as `pairs`."
        )
    return f"{where} is {type(text).__name__} ({text!r}), not str: drop it or write it as text."


def check_unicode(value: object, where: str = "texts") -> None:
    """Raises ValueError naming the first text with a lone surrogate, which no tokenizer can read."""
    if not isinstance(value, str):
        for index, part in enumerate(value):
            check_unicode(part, f"{where}[{index}]")
        return
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} holds a lone surrogate ({value[error.start]!r}), which is no character: clean it with "
            'text.encode("utf-8", "replace").decode("utf-8").'
        ) from error


def texts_or_pairs(texts: Iterable, pairs: Iterable | None, words: bool) -> list:
    """Texts, or tuples of text and second text, checked."""
    read = as_words if words else as_texts
    texts = read(texts, "texts")
    if pairs is None:
        return texts
    pairs = read(pairs, "pairs")
    if len(texts) != len(pairs):
        raise ValueError(f"{len(texts)} texts but {len(pairs)} pairs: give each text its second text.")
    return list(zip(texts, pairs, strict=True))


def truncation_strategy(truncation: bool | str, paired: bool, overflow: bool, overlap: int) -> str | None:
    """The backend's name for how to cut, None for not at all."""
    strategy = {True: "longest_first", False: None}.get(truncation, truncation)
    if strategy is not None and strategy not in TRUNCATIONS:
        raise ValueError(f"truncation must be True, False or one of {TRUNCATIONS}, got {truncation!r}.")
    if strategy == "only_second" and not paired:
        raise ValueError('truncation="only_second" cuts the second texts, but no pairs were given.')
    if overflow and (strategy is None or (paired and strategy == "longest_first")):
        raise ValueError(
            f"return_overflow with truncation={truncation!r}: windows need to know which text to go on "
            'with; pass truncation="only_second" for pairs and True for single texts.'
        )
    if overlap < 0 or (overlap and not overflow):
        raise ValueError(f"overlap={overlap} is for windows: pass return_overflow=True, and no negative one.")
    return strategy
