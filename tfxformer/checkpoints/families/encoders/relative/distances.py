"""Disentangled attention in config.json: which distances count, and how (He et al., 2020, arXiv:2006.03654)."""

from collections.abc import Mapping

from tfxformer.checkpoints.family import Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.layers import Scores

_TERMS = {"c2p": "content_to_position", "p2c": "position_to_content"}
_SAID = (
    *("relative_attention", "pos_att_type", "position_buckets"),
    *("max_relative_positions", "norm_rel_ebd", "share_att_key"),
)
_POSITIONS = 512


def _words(said) -> list[str]:
    """A config's list of words, which may be one text with bars between them."""
    said = said.lower().split("|") if isinstance(said, str) else said or []
    return [word.strip() for word in said]


def _read_scores(reference: Mapping, size: Key, heads: Key) -> dict:
    """How distances count. Scores are divided by the root of the heads' width times the number of all terms."""
    terms, relative = _words(reference.get("pos_att_type")), bool(reference.get("relative_attention"))
    if not set(terms) <= set(_TERMS) or (relative and not terms):
        raise CheckpointError(f"config.json says pos_att_type={terms}; wanted are c2p or p2c, or both.")
    width = size.read(reference) / heads.read(reference)
    longest = reference.get("max_relative_positions") or -1
    scores = Scores(
        "disentangled",
        buckets=max(reference.get("position_buckets") or 0, 0),
        max_distance=longest if longest > 0 else reference.get("max_position_embeddings") or _POSITIONS,
        terms=tuple(_TERMS[term] for term in terms),
        normed="layer_norm" in _words(reference.get("norm_rel_ebd")),
        own_projections=not reference.get("share_att_key", False),
    ) if relative else None  # fmt: skip
    return {
        "encoder.attention.scale": (width * (1 + len(terms))) ** -0.5 if terms else None,
        "encoder.attention.scores": scores,
    }


def _write_scores(config) -> dict:
    """The inverse of `_read_scores`."""
    scores = config.encoder.attention_of(0).scores
    if scores is None:
        return {"relative_attention": False}
    return {
        "relative_attention": True,
        "pos_att_type": [word for word, term in _TERMS.items() if term in scores.terms],
        "position_buckets": scores.buckets or -1,
        "max_relative_positions": scores.max_distance,
        "norm_rel_ebd": "layer_norm" if scores.normed else "none",
        "share_att_key": not scores.own_projections,
    }


def scores_rule(size: Key, heads: Key) -> Rule:
    """The rule of scores, of a family's keys for the model's width and its heads."""
    return Rule(_SAID, lambda reference: _read_scores(reference, size, heads), _write_scores)


POSITIONS = Rule(
    ("position_biased_input",),
    lambda reference: {"encoder.positions": "none" if reference.get("position_biased_input") is False else "learned"},
    lambda config: {"position_biased_input": config.encoder.has_position_table},
)
