"""GTE, mGTE's encoder (Zhang et al., 2024, arXiv:2407.19669): BERT with rotary positions and gated halves."""

from dataclasses import replace

from tfxformer.checkpoints.families.encoders import bert, nomic_bert
from tfxformer.checkpoints.family import Blocks, Key

FAMILY = replace(
    bert.FAMILY,
    name="gte",
    prefix="gte.",
    architecture="GteModel",
    keys={
        **bert.KEYS,
        "vocabulary_size": Key("vocab_size", 250048),
        "token_types": Key("type_vocab_size", 1),
        "padding_id": Key("pad_token_id", 1),
        "encoder.max_positions": Key("max_position_embeddings", 8192),
        "encoder.attention_dropout": Key("attention_probs_dropout_prob", 0.0),
    },
    fixed={**nomic_bert.FIXED, "encoder.feed_forward.output_bias": True, "heads.masked_lm_activation": "gelu"},
    rules=(nomic_bert.turning_rule(160000.0, 8192),),
    required={"tie_word_embeddings": (True, None)},
    modules=nomic_bert.EMBEDDINGS,
    blocks={
        "encoder": Blocks(
            bert.block,
            {
                **nomic_bert.parts("attention.qkv_proj", nomic_bert.PROJECTIONS),
                "self_attention/output": "attention.o_proj",
                "attention_norm": "attn_ln",
                **nomic_bert.parts("mlp.up_gate_proj", ("feed_forward/expand", "feed_forward/gate")),
                "feed_forward/output": "mlp.down_proj",
                "feed_forward_norm": "mlp_ln",
            },
        )
    },
    heads=nomic_bert.heads(
        "Gte",
        {
            "masked_lm_transform/dense": "lm_head.dense",
            "masked_lm_transform/norm": "lm_head.norm",
            "masked_lm_bias": "lm_head.decoder",
        },
    ),
    tied={"lm_head.decoder.weight": "embeddings.word_embeddings.weight"},
)
