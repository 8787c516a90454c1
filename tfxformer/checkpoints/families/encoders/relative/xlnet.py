"""XLNet (Yang et al., 2019, arXiv:1906.08237), its stream of contents: what texts are classified and embedded by.

Its tokenizer pads in front, ours behind: only distances between real tokens count, and a classifier reads the last.
"""

from tfxformer.checkpoints.family import Blocks, Family, Head, Key
from tfxformer.checkpoints.layout import Module
from tfxformer.layers import Scores

_ATTENTION = "rel_attn"


def _own(name: str, transposed: bool = False) -> Module:
    """A parameter [D, N, H] that is a kernel."""
    return Module(_ATTENTION, leaves={"kernel": name}, heads_apart=True, transposed=transposed)


_TERMS = {
    "content_bias": "r_w_bias",
    "position_bias": "r_r_bias",
    "segment_bias": "r_s_bias",
    "segment_embeddings": "seg_embed",
}
BLOCK = {
    "self_attention/query": _own("q"),
    "self_attention/key": _own("k"),
    "self_attention/value": _own("v"),
    "self_attention/output": _own("o", transposed=True),
    "self_attention/position_key": _own("r"),
    "self_attention/relative": Module(_ATTENTION, leaves=_TERMS, heads_apart=True),
    "attention_norm": "rel_attn.layer_norm",
    "feed_forward/expand": "ff.layer_1",
    "feed_forward/output": "ff.layer_2",
    "feed_forward_norm": "ff.layer_norm",
}
_SUMMARY = {"classifier/dense": "sequence_summary.summary", "classifier/output": "logits_proj"}

FAMILY = Family(
    name="xlnet",
    prefix="transformer.",
    architecture="XLNetModel",
    keys={
        "vocabulary_size": Key("vocab_size", 32000, ("n_token",)),
        "padding_id": Key("pad_token_id", 5),
        "initializer_range": Key("initializer_range", 0.02),
        "encoder.num_layers": Key("n_layer", 24, ("num_hidden_layers",)),
        "encoder.hidden_size": Key("d_model", 1024, ("hidden_size",)),
        "encoder.attention.heads": Key("n_head", 16, ("num_attention_heads",)),
        "encoder.feed_forward.size": Key("d_inner", 4096),
        "encoder.feed_forward.activation": Key("ff_activation", "gelu"),
        "encoder.norm.epsilon": Key("layer_norm_eps", 1e-12),
        "encoder.dropout": Key("dropout", 0.1),
        "encoder.attention_dropout": Key("dropout", 0.1),
        "heads.classifier_dropout": Key("summary_last_dropout", 0.1),
    },
    fixed={
        **{"token_types": 3, "hidden_token": True, "encoder.max_positions": 1 << 20},
        "encoder.attention.scores": Scores("sinusoidal", segments=True),
        "encoder.attention.bias": False,
        "encoder.norm.embedding": False,
        **{"heads.classifier_activation": "tanh", "heads.classifier_pooling": "last"},
        "heads.masked_lm_transform": False,
    },
    required={
        **{"attn_type": ("bi", None), "summary_type": ("last", None), "summary_activation": ("tanh", None)},
        **dict.fromkeys(("summary_use_proj", "tie_word_embeddings", "untie_r"), (True, None)),
        **dict.fromkeys(("bi_data", "same_length"), (False, None)),
        "clamp_len": (-1, None),
    },
    modules={
        "token_embedding": "word_embedding",
        "hidden_token": Module("", leaves={"embeddings": "mask_emb"}),
    },
    blocks={"encoder": Blocks(lambda config, index: f"layer.{index}", BLOCK)},
    heads={
        "text-classification": Head("XLNetForSequenceClassification", _SUMMARY),
        "token-classification": Head("XLNetForTokenClassification", {"token_classifier/output": "classifier"}),
        "question-answering": Head("XLNetForQuestionAnsweringSimple", {"span_classifier/output": "qa_outputs"}),
        "masked-lm": Head("XLNetLMHeadModel", {"masked_lm_bias": "lm_loss"}),
    },
    other_heads=("start_logits", "end_logits", "answer_class"),
    tied={"lm_loss.weight": "word_embedding.weight"},
)
