"""ELECTRA (Clark et al., 2020, arXiv:2003.10555), discriminators and generators."""

from dataclasses import replace

from tfxformer.checkpoints.families.encoders.bert import bert
from tfxformer.checkpoints.family import Head, Key

_KEYS = {
    **bert.KEYS,
    "embedding_size": Key("embedding_size", 128),
    "encoder.hidden_size": Key("hidden_size", 256),
    "encoder.attention.heads": Key("num_attention_heads", 4),
    "encoder.feed_forward.size": Key("intermediate_size", 1024),
}

FAMILY = replace(
    bert.FAMILY,
    name="electra",
    prefix="electra.",
    architecture="ElectraModel",
    keys=_KEYS,
    fixed={
        **{path: value for path, value in bert.FIXED.items() if path not in _KEYS},
        "heads.pooler": False,
        "heads.classifier_activation": "gelu",
        "heads.masked_lm_activation": "gelu",  # whatever hidden_act says
    },
    modules={**bert.EMBEDDINGS, "embedding_projection": "embeddings_project"},
    pooler=None,
    heads={
        "text-classification": Head(
            "ElectraForSequenceClassification",
            {"classifier/dense": "classifier.dense", "classifier/output": "classifier.out_proj"},
        ),
        "token-classification": Head("ElectraForTokenClassification", {"token_classifier/output": "classifier"}),
        "question-answering": Head("ElectraForQuestionAnswering", {"span_classifier/output": "qa_outputs"}),
        "masked-lm": Head(
            "ElectraForMaskedLM",
            {
                "masked_lm_transform/dense": "generator_predictions.dense",
                "masked_lm_transform/norm": "generator_predictions.LayerNorm",
                "masked_lm_bias": "generator_lm_head",
            },
        ),
        "replaced-token-detection": Head(
            "ElectraForPreTraining",
            {
                "replaced_token_head/dense": "discriminator_predictions.dense",
                "replaced_token_head/output": "discriminator_predictions.dense_prediction",
            },
        ),
    },
    tied={"generator_lm_head.weight": "embeddings.word_embeddings.weight"},
)
