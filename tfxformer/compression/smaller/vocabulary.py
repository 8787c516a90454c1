"""Vocabulary trimming: the token table keeps the rows that a corpus uses, and the tokenizer their tokens."""

from __future__ import annotations

import numpy as np

from tfxformer.compression.smaller.rebuilding import backbone_of, rebuild

# Path of a weight with a place for each token -> the axis of the tokens.
TOKEN_AXES = {
    "token_embedding/embeddings": 0,
    "masked_lm_bias/bias": 0,
    "masked_lm_beyond/kernel": 1,
    "language_model_head/kernel": 1,
    "final_logits_bias/bias": 0,
}


# What older config.json files say of ids beside keys that end in "_token_id".
IN_GENERATION_CONFIG = ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias")


def trim_vocabulary(model, texts):
    """A task whose tokenizer and token table have only what some texts use (Abdaoui et al., 2020, arXiv:2010.05609).

    Those texts keep their tokens, and so the model its outputs; language models lose the logits of the tokens that
    went. Special and added tokens stay, and what other words are spelled by: single letters of a WordPiece vocabulary,
    where what cannot be spelled is unknown, as it was before; all bytes of a byte-level BPE. See `text.trimming`.

    Args:
        model: a task of ours with a WordPiece or BPE tokenizer; it stays as it is.
        texts: list of str, all kinds that the model will meet. Texts of pairs and words of lists as texts of their own.

    Returns:
        A new task of the same class, not compiled. Its ids are others: arrays and records made with the old tokenizer
        are not for it.

    Raises:
        TypeError: for a model that is not ours, and what is no text. ValueError: for a tokenizer of another kind, no
            text, and a model without a tokenizer.
    """
    backbone_of(model)  # the right error for a model that is not ours
    if getattr(model, "tokenizer", None) is None:
        raise ValueError(
            "trim_vocabulary trims a task's tokenizer and model together, and this model has no tokenizer. With its "
            "tokenizer at hand: tokenizer, ids = tokenizer.trimmed(texts); compression.keep_tokens(model, ids)."
        )
    tokenizer, ids = model.tokenizer.trimmed(texts)
    return keep_tokens(model, ids, tokenizer)


def add_tokens(model, tokens):
    """A task whose tokenizer knows further tokens, with a row for each in the token table.

    They are found in texts before anything else is, as special tokens are: marks of entities (`data.ENTITY_MARKERS`),
    roles, fields. A new row is the mean of the others and a little noise (Hewitt, 2021,
    nlp.stanford.edu/~johnhew/vocab-expansion.html), the same in every call; training makes it something.

    Args:
        model: a task of ours with a tokenizer; it stays as it is.
        tokens: list of str. Those that the tokenizer has already stay what they are.

    Returns:
        A new task of the same class, not compiled.

    Raises:
        TypeError: for a model that is not ours. ValueError: for a model without a tokenizer or with two vocabularies,
            and a token that is empty.
    """
    backbone = backbone_of(model)
    config = backbone.config
    if getattr(model, "tokenizer", None) is None:
        raise ValueError("add_tokens gives tokens to a tokenizer and its model together: this model has no tokenizer.")
    if config.source_vocabulary_size is not None:
        raise ValueError("add_tokens: this model has a vocabulary for sources and one for targets; it takes one.")
    count, tokenizer = len(model.tokenizer.vocabulary()), model.tokenizer.with_tokens(tokens)
    rows = max(config.vocabulary_size, len(tokenizer.vocabulary()))  # a table may have more rows than tokens
    generator, values = np.random.default_rng(0), {}
    for variable in model.weights:
        axis = TOKEN_AXES.get(variable.path)
        if axis is not None:
            known = np.moveaxis(np.asarray(variable.value, "float32"), axis, 0)[:count]
            more = len(tokenizer.vocabulary()) - count
            noise = config.initializer_range * generator.standard_normal((more, *known.shape[1:]))
            new = known.mean(0) + (noise if known.ndim > 1 else 0.0 * noise)
            spare = np.moveaxis(np.asarray(variable.value, "float32"), axis, 0)[count + more :]
            values[variable.path] = np.moveaxis(np.concatenate([known, new, spare]), 0, axis)
    return rebuild(model, config.replace(vocabulary_size=rows), {}, tokenizer=tokenizer, values=values)


def keep_tokens(model, ids, tokenizer=None):
    """A model with the rows of some token ids only, which get the ids 0, 1, ... in their order.

    Args:
        model: a task of ours, or a bare encoder or decoder; it stays as it is.
        ids: int [kept], ascending, as `Tokenizer.trimmed` returns them.
        tokenizer: the one with the new ids; a task needs it where it has a tokenizer.

    Returns:
        A new model of the same class, not compiled.

    Raises:
        TypeError: for a model that is not ours. ValueError: for ids that are not ascending ids of the vocabulary or
            lack the padding token, a tokenizer that does not go with them, and a model with two vocabularies.
    """
    backbone = backbone_of(model)
    config, ids = backbone.config, np.asarray(ids)
    if config.source_vocabulary_size is not None:
        raise ValueError("keep_tokens: this model has a vocabulary for sources and one for targets; it takes one.")
    if (
        ids.ndim != 1
        or not len(ids)
        or not np.issubdtype(ids.dtype, np.integer)
        or (np.diff(ids) <= 0).any()
        or not 0 <= ids[0] <= ids[-1] < config.vocabulary_size
    ):
        raise ValueError(f"keep_tokens: ids must be ascending ids of 0 to {config.vocabulary_size - 1}; got {ids!r}.")
    if config.padding_id not in ids:
        raise ValueError(f"keep_tokens: the padding token, id {config.padding_id}, must be among the ids kept.")
    padding = int(np.searchsorted(ids, config.padding_id))
    start = getattr(model, "decoder_start_token_id", None)
    if start is not None and start not in ids:
        raise ValueError(f"keep_tokens: the token that targets begin behind, id {start}, must be among the ids kept.")
    if any(stack.position_mode == "nonpad_cumsum" for stack in config.stacks.values()) and padding != config.padding_id:
        raise ValueError(
            f"keep_tokens: positions of this model are counted from its padding id, {config.padding_id}, which would "
            f"become {padding}: keep all ids below it too."
        )
    if (getattr(model, "tokenizer", None) is None) != (tokenizer is None):
        raise ValueError("keep_tokens: a model with a tokenizer needs the one with the new ids, and only such a model.")
    if tokenizer is not None and tokenizer.vocabulary_size != len(ids):
        raise ValueError(f"keep_tokens: {len(ids)} ids, but a tokenizer of {tokenizer.vocabulary_size} tokens.")
    cuts = {
        variable.path: (TOKEN_AXES[variable.path], ids) for variable in model.weights if variable.path in TOKEN_AXES
    }
    config = config.replace(vocabulary_size=len(ids), padding_id=padding)
    reference = _renumbered(backbone.reference_config, ids)
    return rebuild(model, config, cuts, tokenizer=tokenizer, reference_config=reference, kept_ids=ids)


def _renumbered(reference: dict | None, ids: np.ndarray) -> dict | None:
    """A config.json with the new ids of its special tokens, without those that are gone.

    How it generates stands in generation_config.json from now on, and counts there.
    """
    if reference is None:
        return None
    new, written = {int(old): index for index, old in enumerate(ids)}, {}
    for key, value in reference.items():
        if key in IN_GENERATION_CONFIG:
            continue
        if key.endswith("_token_id") and value is not None:
            several = [new[one] for one in (value if isinstance(value, list) else [value]) if one in new]
            if not several:
                continue
            value = several if isinstance(value, list) else several[0]
        written[key] = value
    return written
