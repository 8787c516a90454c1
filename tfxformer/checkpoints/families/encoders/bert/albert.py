"""ALBERT (Lan et al., 2019, arXiv:1909.11942): layers share weights by group."""

from dataclasses import replace

from tfxformer.checkpoints.families.encoders.bert import bert
from tfxformer.checkpoints.family import Blocks, Head, Key


def block(config, index: int) -> str:
    """The reference's module of a block: its group, and its place in the group."""
    group, inner = divmod(index, config.encoder.layers_per_group)
    return f"encoder.albert_layer_groups.{group}.albert_layers.{inner}"


_KEYS = {
    **bert.KEYS,
    "vocabulary_size": Key("vocab_size", 30000),
    "embedding_size": Key("embedding_size", 128),
    "encoder.hidden_size": Key("hidden_size", 4096),
    "encoder.attention.heads": Key("num_attention_heads", 64),
    "encoder.feed_forward.size": Key("intermediate_size", 16384),
    "encoder.feed_forward.activation": Key("hidden_act", "gelu_new"),
    "encoder.dropout": Key("hidden_dropout_prob", 0.0),
    "encoder.attention_dropout": Key("attention_probs_dropout_prob", 0.0),
    "encoder.layer_groups": Key("num_hidden_groups", 1),
    "encoder.layers_per_group": Key("inner_group_num", 1),
    "heads.classifier_dropout": Key("classifier_dropout_prob", 0.1),
}

MASKED_LM = {
    "masked_lm_transform/dense": "predictions.dense",
    "masked_lm_transform/norm": "predictions.LayerNorm",
    "masked_lm_bias": "predictions",
}

BLOCK = {
    "self_attention/query": "attention.query",
    "self_attention/key": "attention.key",
    "self_attention/value": "attention.value",
    "self_attention/output": "attention.dense",
    "attention_norm": "attention.LayerNorm",
    "feed_forward/expand": "ffn",
    "feed_forward/output": "ffn_output",
    "feed_forward_norm": "full_layer_layer_norm",
}

FAMILY = replace(
    bert.FAMILY,
    name="albert",
    prefix="albert.",
    architecture="AlbertModel",
    keys=_KEYS,
    fixed={
        **{path: value for path, value in bert.FIXED.items() if path not in _KEYS},
        "embedding_projection": True,
    },
    modules={**bert.EMBEDDINGS, "embedding_projection": "encoder.embedding_hidden_mapping_in"},
    blocks={"encoder": Blocks(block, BLOCK)},
    pooler="pooler",
    heads={
        "text-classification": Head("AlbertForSequenceClassification", {"classifier/output": "classifier"}),
        "token-classification": Head("AlbertForTokenClassification", {"token_classifier/output": "classifier"}),
        "question-answering": Head("AlbertForQuestionAnswering", {"span_classifier/output": "qa_outputs"}),
        "masked-lm": Head("AlbertForMaskedLM", MASKED_LM),
        "bert-pretraining": Head(
            "AlbertForPreTraining", {**MASKED_LM, "sentence_classifier/output": "sop_classifier.classifier"}
        ),
    },
    tied={
        "predictions.decoder.weight": "embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    },
)
