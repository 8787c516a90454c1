"""RoBERTa (Liu et al., 2019, arXiv:1907.11692), and what is the same model under another name.

XLM-RoBERTa (Conneau et al., 2019, arXiv:1911.02116), CamemBERT (Martin et al., 2019, arXiv:1911.03894) and data2vec for
text (Baevski et al., 2022, arXiv:2202.03555).
"""

from dataclasses import replace

from tfxformer.checkpoints.families.encoders.bert import bert
from tfxformer.checkpoints.family import Family, Head, Key

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


def same_as_roberta(name: str, classes: str, **changes) -> Family:
    """The page of a family that is RoBERTa under another name; `classes` is what its classes begin with."""
    heads = {
        task: replace(head, architecture=head.architecture.replace("Roberta", classes))
        for task, head in FAMILY.heads.items()
    }
    keys = {**FAMILY.keys, "vocabulary_size": Key("vocab_size", 30522)}
    return replace(FAMILY, name=name, architecture=f"{classes}Model", keys=keys, heads=heads, **changes)


XLM_FAMILY = same_as_roberta("xlm-roberta", "XLMRoberta")
CAMEMBERT = same_as_roberta("camembert", "Camembert")
DATA2VEC = same_as_roberta("data2vec-text", "Data2VecText", prefix="data2vec_text.")
