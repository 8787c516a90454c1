"""DistilBERT (Sanh et al., 2019, arXiv:1910.01108)."""

from tfxformer.checkpoints.families.encoders.bert import bert
from tfxformer.checkpoints.family import Blocks, Family, Head, Key

KEYS = {
    "vocabulary_size": Key("vocab_size", 30522),
    "padding_id": Key("pad_token_id", 0),
    "initializer_range": Key("initializer_range", 0.02),
    "encoder.num_layers": Key("n_layers", 6, ("num_hidden_layers",)),
    "encoder.hidden_size": Key("dim", 768, ("hidden_size",)),
    "encoder.attention.heads": Key("n_heads", 12, ("num_attention_heads",)),
    "encoder.feed_forward.size": Key("hidden_dim", 3072),
    "encoder.feed_forward.activation": Key("activation", "gelu"),
    "encoder.max_positions": Key("max_position_embeddings", 512),
    "encoder.dropout": Key("dropout", 0.1),
    "encoder.attention_dropout": Key("attention_dropout", 0.1),
    "heads.classifier_dropout": Key("seq_classif_dropout", 0.2),
}


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"transformer.layer.{index}"


BLOCK = {
    "self_attention/query": "attention.q_lin",
    "self_attention/key": "attention.k_lin",
    "self_attention/value": "attention.v_lin",
    "self_attention/output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "feed_forward/expand": "ffn.lin1",
    "feed_forward/output": "ffn.lin2",
    "feed_forward_norm": "output_layer_norm",
}

FAMILY = Family(
    name="distilbert",
    prefix="distilbert.",
    architecture="DistilBertModel",
    keys=KEYS,
    fixed={
        **bert.FIXED,
        "token_types": 0,
        "encoder.norm.epsilon": 1e-12,  # hard-coded in the reference
        "heads.pooler": False,
        "heads.classifier_activation": "relu",
    },
    required={"tie_word_embeddings": (True, None)},
    modules={name: module for name, module in bert.EMBEDDINGS.items() if name != "segment_embedding"},
    blocks={"encoder": Blocks(block, BLOCK)},
    heads={
        "text-classification": Head(
            "DistilBertForSequenceClassification",
            {"classifier/dense": "pre_classifier", "classifier/output": "classifier"},
        ),
        "token-classification": Head("DistilBertForTokenClassification", {"token_classifier/output": "classifier"}),
        "question-answering": Head("DistilBertForQuestionAnswering", {"span_classifier/output": "qa_outputs"}),
        "masked-lm": Head(
            "DistilBertForMaskedLM",
            {
                "masked_lm_transform/dense": "vocab_transform",
                "masked_lm_transform/norm": "vocab_layer_norm",
                "masked_lm_bias": "vocab_projector",
            },
        ),
    },
    tied={"vocab_projector.weight": "embeddings.word_embeddings.weight"},
)
