"""DeBERTa, versions 2 and 3 (He et al., 2020, arXiv:2006.03654, and 2021, arXiv:2111.09543)."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.encoders import bert
from tfxformer.checkpoints.family import Blocks, Head, Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.layout import Module
from tfxformer.layers import Scores

_TERMS = {"c2p": "content_to_position", "p2c": "position_to_content"}
SAID = (
    *("relative_attention", "pos_att_type", "position_buckets"),
    *("max_relative_positions", "norm_rel_ebd", "share_att_key"),
)
_SIZE, _HEADS, _POSITIONS = Key("hidden_size", 1536), Key("num_attention_heads", 24), 512


def _words(said) -> list[str]:
    """A config's list of words, which may be one text with bars between them."""
    said = said.lower().split("|") if isinstance(said, str) else said or []
    return [word.strip() for word in said]


def read_scores(reference: Mapping, size: Key = _SIZE, heads: Key = _HEADS) -> dict:
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


def write_scores(config) -> dict:
    """The inverse of `read_scores`."""
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


POSITIONS = Rule(
    ("position_biased_input",),
    lambda reference: {"encoder.positions": "none" if reference.get("position_biased_input") is False else "learned"},
    lambda config: {"position_biased_input": config.encoder.has_position_table},
)
_V3 = "lm_predictions.lm_head"  # the names that version 3 was published with
HEADS = {
    "text-classification": Head(
        "DebertaV2ForSequenceClassification", {"classifier/dense": "pooler.dense", "classifier/output": "classifier"}
    ),
    "token-classification": Head("DebertaV2ForTokenClassification", {"token_classifier/output": "classifier"}),
    "question-answering": Head("DebertaV2ForQuestionAnswering", {"span_classifier/output": "qa_outputs"}),
    "masked-lm": Head(
        "DebertaV2ForMaskedLM",
        {
            "masked_lm_transform/dense": Module("cls.predictions.transform.dense", (f"{_V3}.dense",)),
            "masked_lm_transform/norm": Module("cls.predictions.transform.LayerNorm", (f"{_V3}.LayerNorm",)),
            "masked_lm_bias": Module("cls.predictions", (_V3,)),
        },
    ),
}

FAMILY = replace(
    bert.FAMILY,
    name="deberta-v2",
    prefix="deberta.",
    architecture="DebertaV2Model",
    keys={
        **bert.KEYS,
        "vocabulary_size": Key("vocab_size", 128100),
        "token_types": Key("type_vocab_size", 0),
        "encoder.num_layers": Key("num_hidden_layers", 24),
        "encoder.hidden_size": _SIZE,
        "encoder.attention.heads": _HEADS,
        "encoder.feed_forward.size": Key("intermediate_size", 6144),
        "encoder.norm.epsilon": Key("layer_norm_eps", 1e-7),
        "heads.classifier_activation": Key("pooler_hidden_act", "gelu"),
        "heads.classifier_dropout": Key("cls_dropout", lambda c: c.get("hidden_dropout_prob", 0.1)),
    },
    fixed={
        **{path: value for path, value in bert.FIXED.items() if path != "heads.classifier_activation"},
        "heads.pooler": False,
    },
    rules=(Rule(SAID, read_scores, write_scores), POSITIONS),
    required={
        **dict.fromkeys(("tie_word_embeddings", "legacy"), (True, None)),
        "conv_kernel_size": (0, None),  # a convolution beside the first layer, of version 2's largest alone
        "embedding_size": (None,),
    },
    modules={
        **bert.EMBEDDINGS,
        "encoder_position_scores": "encoder.rel_embeddings",
        "encoder_position_scores/norm": "encoder.LayerNorm",
    },
    blocks={
        "encoder": Blocks(
            bert.block,
            {
                **bert.BLOCK,
                **{f"self_attention/{name}": f"attention.self.{name}_proj" for name in ("query", "key", "value")},
                "self_attention/position_key": "attention.self.pos_key_proj",
                "self_attention/position_query": "attention.self.pos_query_proj",
            },
        )
    },
    pooler=None,
    heads=HEADS,
    other_heads=("mask_predictions",),
)
