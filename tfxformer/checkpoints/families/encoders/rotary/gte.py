"""GTE, mGTE's encoder (Zhang et al., 2024, arXiv:2407.19669): BERT with rotary positions and gated halves.

It was published with code of its own, as the model "new"; transformers has it as "gte".
"""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.encoders.bert import bert
from tfxformer.checkpoints.families.encoders.rotary import nomic_bert
from tfxformer.checkpoints.family import Blocks, Key, Rule
from tfxformer.checkpoints.rope import read_rotary, stated

_MASKED_LM = {
    "masked_lm_transform/dense": "lm_head.dense",
    "masked_lm_transform/norm": "lm_head.norm",
    "masked_lm_bias": "lm_head.decoder",
}

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
    heads=nomic_bert.heads("Gte", _MASKED_LM),
    tied={"lm_head.decoder.weight": "embeddings.word_embeddings.weight"},
)


def _read_turning(reference: Mapping) -> dict:
    scaling = stated(reference.get("rope_scaling") or {})
    parameters = {"rope_theta": reference.get("rope_theta") or 10000.0, **scaling}
    longest = reference.get("max_position_embeddings") or _POSITIONS
    return {"encoder.attention.rotary": read_rotary(parameters, None, longest, ("default", "ntk"))}


def _write_turning(config) -> dict:
    rotary = config.encoder.attention_of(0).rotary
    if rotary is None:
        return {}
    scaling = None if rotary.kind == "default" else {"type": rotary.kind, "factor": rotary.factor}
    return {"rope_theta": rotary.base, "rope_scaling": scaling}


_POSITIONS = 2048
NEW = replace(
    FAMILY,
    name="new",
    prefix="new.",
    architecture="NewModel",
    keys={
        **FAMILY.keys,
        "vocabulary_size": Key("vocab_size", 30528),
        "padding_id": Key("pad_token_id", 0),
        "encoder.max_positions": Key("max_position_embeddings", _POSITIONS),
    },
    fixed={**FAMILY.fixed, "heads.masked_lm_activation": None},
    rules=(Rule(("rope_scaling", "rope_theta"), _read_turning, _write_turning),),
    required={
        **FAMILY.required,
        **{"position_embedding_type": ("rope", None), "layer_norm_type": ("layer_norm", None)},
        **{"pack_qkv": (True, None), "logn_attention_scale": (False, None)},
    },
    heads={
        **nomic_bert.heads("New", _MASKED_LM),
        "question-answering": replace(bert.FAMILY.heads["question-answering"], architecture="NewForQuestionAnswering"),
    },
)
