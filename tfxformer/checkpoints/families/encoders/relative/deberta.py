"""DeBERTa, versions 2 and 3 (He et al., 2020, arXiv:2006.03654, and 2021, arXiv:2111.09543)."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.encoders.bert import bert
from tfxformer.checkpoints.families.encoders.relative.distances import POSITIONS, scores_rule
from tfxformer.checkpoints.family import Blocks, Head, Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.layout import Module

_SIZE, _HEADS = Key("hidden_size", 1536), Key("num_attention_heads", 24)
_CONVOLUTION = ("conv_kernel_size", "conv_act", "conv_groups")


def _read_convolution(reference: Mapping) -> dict:
    """Beside the first layer of version 2's largest."""
    size = reference.get("conv_kernel_size") or 0
    if size and (reference.get("conv_groups") or 1) != 1:
        raise CheckpointError(f"config.json says conv_groups={reference['conv_groups']}; tfxformer implements 1 only.")
    if size > 0 and size % 2 == 0:
        raise CheckpointError(f"config.json says conv_kernel_size={size}: an even one makes rows shorter by a token.")
    said = {"size": size, "activation": reference.get("conv_act") or "tanh"}
    return {"encoder.embedding_convolution": said if size > 0 else None}


def _write_convolution(config) -> dict:
    said = config.encoder.embedding_convolution
    return {} if said is None else {"conv_kernel_size": said.size, "conv_act": said.activation}


_V3 = "lm_predictions.lm_head"  # the names that version 3 was published with, and "legacy" is false with
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
    rules=(scores_rule(_SIZE, _HEADS), POSITIONS, Rule(_CONVOLUTION, _read_convolution, _write_convolution)),
    required={"tie_word_embeddings": (True, None), "embedding_size": (None,)},
    written={"legacy": True},
    modules={
        **bert.EMBEDDINGS,
        "encoder_position_scores": "encoder.rel_embeddings",
        "encoder_position_scores/norm": "encoder.LayerNorm",
        "embedding_convolution/convolution": "encoder.conv.conv",
        "embedding_convolution/norm": "encoder.conv.LayerNorm",
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
