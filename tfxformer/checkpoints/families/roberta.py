"""RoBERTa (Liu et al., 2019, arXiv:1907.11692) and XLM-RoBERTa (Conneau et al., 2019, arXiv:1911.02116)."""

from dataclasses import replace

from tfxformer.checkpoints.families import bert
from tfxformer.checkpoints.family import Head, Key

FAMILY = replace(
    bert.FAMILY,
    name="roberta",
    prefix="roberta.",
    architecture="RobertaModel",
    keys={
        **bert.KEYS,
        "vocabulary_size": Key("vocab_size", 50265),
        "padding_id": Key("pad_token_id", 1),
    },
    fixed={
        **bert.FIXED,
        "encoder.position_mode": "nonpad_cumsum",
        "heads.classifier_activation": "tanh",
        "heads.masked_lm_activation": "gelu",  # whatever hidden_act says
    },
    heads={
        "text-classification": Head(
            "RobertaForSequenceClassification",
            {"classifier/dense": "classifier.dense", "classifier/output": "classifier.out_proj"},
        ),
        "token-classification": Head("RobertaForTokenClassification", {"token_classifier/output": "classifier"}),
        "question-answering": Head("RobertaForQuestionAnswering", {"span_classifier/output": "qa_outputs"}),
        "masked-lm": Head(
            "RobertaForMaskedLM",
            {
                "masked_lm_transform/dense": "lm_head.dense",
                "masked_lm_transform/norm": "lm_head.layer_norm",
                "masked_lm_bias": "lm_head",
            },
        ),
    },
    other_heads=(),
    tied={
        "lm_head.decoder.weight": "embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
)

XLM_FAMILY = replace(
    FAMILY,
    name="xlm-roberta",
    architecture="XLMRobertaModel",
    heads={task: replace(head, architecture=f"XLM{head.architecture}") for task, head in FAMILY.heads.items()},
)
