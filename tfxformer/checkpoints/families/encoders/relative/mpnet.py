"""MPNet (Song et al., 2020, arXiv:2004.09297): RoBERTa without segments, and one table of relative scores beside it."""

from dataclasses import replace

from tfxformer.checkpoints.families.encoders.bert import bert, roberta
from tfxformer.checkpoints.family import Blocks, Key
from tfxformer.layers import Scores

_ATTENTION = {
    "self_attention/query": "attention.attn.q",
    "self_attention/key": "attention.attn.k",
    "self_attention/value": "attention.attn.v",
    "self_attention/output": "attention.attn.o",
    "attention_norm": "attention.LayerNorm",
}

FAMILY = replace(
    roberta.FAMILY,
    name="mpnet",
    prefix="mpnet.",
    architecture="MPNetModel",
    keys={
        **{switch: key for switch, key in roberta.FAMILY.keys.items() if switch != "token_types"},
        "vocabulary_size": Key("vocab_size", 30527),
    },
    fixed={
        **roberta.FAMILY.fixed,
        "token_types": 0,
        "encoder.positions": "learned",
        "encoder.attention.scores": Scores("relative", buckets=32, max_distance=128),
    },
    required={
        **bert.REQUIRED,
        "pad_token_id": (1, None),  # hard-coded in the reference: positions count on from it
        "relative_attention_num_buckets": (32,),  # the reference reads the key for the table alone, not for distances
    },
    modules={
        **{layer: module for layer, module in bert.EMBEDDINGS.items() if layer != "segment_embedding"},
        "encoder_position_scores": "encoder.relative_attention_bias",
    },
    blocks={"encoder": Blocks(bert.block, {**bert.BLOCK, **_ATTENTION})},
    heads={
        task: replace(head, architecture=head.architecture.replace("Roberta", "MPNet"))
        for task, head in roberta.FAMILY.heads.items()
    },
)
