"""DeBERTa's first version (He et al., 2020, arXiv:2006.03654): a row for each distance, and keys without a bias."""

from dataclasses import replace

from tfxformer.checkpoints.families.encoders.relative import deberta
from tfxformer.checkpoints.families.encoders.relative.distances import POSITIONS, scores_rule
from tfxformer.checkpoints.family import Blocks, Key
from tfxformer.checkpoints.layout import Module

_SIZE, _HEADS = Key("hidden_size", 768), Key("num_attention_heads", 12)
_ENCODER = deberta.FAMILY.blocks["encoder"]


def _projection(part: int, bias: str | None = None) -> Module:
    """Queries, keys or values, which alternate head by head."""
    bias = None if bias is None else f"attention.self.{bias}"
    return Module("attention.self.in_proj", part=part, by="heads", bias=bias)


FAMILY = replace(
    deberta.FAMILY,
    name="deberta",
    architecture="DebertaModel",
    keys={
        **deberta.FAMILY.keys,
        "vocabulary_size": Key("vocab_size", 50265),
        "encoder.num_layers": Key("num_hidden_layers", 12),
        "encoder.hidden_size": _SIZE,
        "encoder.attention.heads": _HEADS,
        "encoder.feed_forward.size": Key("intermediate_size", 3072),
    },
    fixed={**deberta.FAMILY.fixed, "encoder.attention.key_bias": False},
    rules=(scores_rule(_SIZE, _HEADS), POSITIONS),
    required={
        **deberta.FAMILY.required,
        # What the second version has besides, and the reference does not read here.
        **{"position_buckets": (-1, 0, None), "norm_rel_ebd": ("none", None), "share_att_key": (False, None)},
        "talking_head": (False, None),
    },
    blocks={
        "encoder": Blocks(
            _ENCODER.name,
            {
                **_ENCODER.modules,
                "self_attention/query": _projection(0, "q_bias"),
                "self_attention/key": _projection(1),
                "self_attention/value": _projection(2, "v_bias"),
                "self_attention/position_key": "attention.self.pos_proj",
                "self_attention/position_query": "attention.self.pos_q_proj",
            },
        )
    },
    heads={
        task: replace(head, architecture=head.architecture.replace("DebertaV2", "Deberta"))
        for task, head in deberta.FAMILY.heads.items()
    },
)
