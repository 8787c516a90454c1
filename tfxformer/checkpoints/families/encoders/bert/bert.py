"""BERT (Devlin et al., 2018, arXiv:1810.04805), and with it MiniLM.

ERNIE (Sun et al., 2019, arXiv:1907.12412) is the same model, with an embedding of the task in its third version.
"""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.family import Blocks, Family, Head, Key, Rule

KEYS = {
    "vocabulary_size": Key("vocab_size", 30522),
    "token_types": Key("type_vocab_size", 2),
    "padding_id": Key("pad_token_id", 0),
    "initializer_range": Key("initializer_range", 0.02),
    "encoder.num_layers": Key("num_hidden_layers", 12),
    "encoder.hidden_size": Key("hidden_size", 768),
    "encoder.attention.heads": Key("num_attention_heads", 12),
    "encoder.feed_forward.size": Key("intermediate_size", 3072),
    "encoder.feed_forward.activation": Key("hidden_act", "gelu"),
    "encoder.norm.epsilon": Key("layer_norm_eps", 1e-12),
    "encoder.max_positions": Key("max_position_embeddings", 512),
    "encoder.dropout": Key("hidden_dropout_prob", 0.1),
    "encoder.attention_dropout": Key("attention_probs_dropout_prob", 0.1),
    "heads.classifier_dropout": Key("classifier_dropout", lambda c: c.get("hidden_dropout_prob", 0.1)),
}

FIXED = {
    "embedding_size": None,
    "embedding_projection": None,
    "encoder.attention.key_value_heads": None,
    "encoder.attention.width": None,
    "encoder.feed_forward.gated": False,
    "encoder.attention.bias": True,
    "encoder.feed_forward.bias": True,
    "encoder.norm.placement": "post",
    "encoder.norm.embedding": True,
    "encoder.norm.final": False,
    "encoder.position_mode": "arange",
    "encoder.layer_groups": None,
    "encoder.layers_per_group": 1,
    "heads.classifier_activation": None,
    "heads.masked_lm_activation": None,
}

REQUIRED = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "tie_word_embeddings": (True, None),
}

EMBEDDINGS = {
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "segment_embedding": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
}

BLOCK = {
    "self_attention/query": "attention.self.query",
    "self_attention/key": "attention.self.key",
    "self_attention/value": "attention.self.value",
    "self_attention/output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward/expand": "intermediate.dense",
    "feed_forward/output": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


def block(config, index: int) -> str:
    """The reference's module of a block."""
    return f"encoder.layer.{index}"


MASKED_LM = {
    "masked_lm_transform/dense": "cls.predictions.transform.dense",
    "masked_lm_transform/norm": "cls.predictions.transform.LayerNorm",
    "masked_lm_bias": "cls.predictions",
}

FAMILY = Family(
    name="bert",
    prefix="bert.",
    architecture="BertModel",
    keys=KEYS,
    fixed=FIXED,
    required=REQUIRED,
    modules=EMBEDDINGS,
    blocks={"encoder": Blocks(block, BLOCK)},
    pooler="pooler.dense",
    heads={
        "text-classification": Head("BertForSequenceClassification", {"classifier/output": "classifier"}),
        "token-classification": Head("BertForTokenClassification", {"token_classifier/output": "classifier"}),
        "question-answering": Head("BertForQuestionAnswering", {"span_classifier/output": "qa_outputs"}),
        "masked-lm": Head("BertForMaskedLM", MASKED_LM),
        "bert-pretraining": Head(
            "BertForPreTraining", {**MASKED_LM, "sentence_classifier/output": "cls.seq_relationship"}
        ),
    },
    tied={
        "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
)


def _read_tasks(reference: Mapping) -> dict:
    rows = reference.get("task_type_vocab_size", 3)
    return {"task_types": rows if reference.get("use_task_id") else 0}


def _write_tasks(config) -> dict:
    return {"use_task_id": True, "task_type_vocab_size": config.task_types} if config.task_types else {}


# The same model, but for an embedding of the task that is added to every token; that of the first, where none is named.
ERNIE = replace(
    FAMILY,
    name="ernie",
    prefix="ernie.",
    architecture="ErnieModel",
    rules=(Rule(("use_task_id", "task_type_vocab_size"), _read_tasks, _write_tasks),),
    modules={**EMBEDDINGS, "task_embedding": "embeddings.task_type_embeddings"},
    heads={
        task: replace(head, architecture=head.architecture.replace("Bert", "Ernie"))
        for task, head in FAMILY.heads.items()
    },
)
