"""EuroBERT (Boizard et al., 2025, arXiv:2503.05500): an encoder whose blocks are Llama's."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.encoders.rotary import nomic_bert
from tfxformer.checkpoints.family import Blocks, Head, Key, Rule

_OURS = {"bos": "cls", "mean": "mean", "late": "mean_of_logits"}
_SIZES = llama.sizes(128256, 12, 768, 12, 3072, 8192, epsilon=1e-5)


def _encoder(paths: Mapping) -> dict:
    """Switches of a decoder as those of an encoder."""
    return {path.replace("decoder.", "encoder."): value for path, value in paths.items()}


def _read_pooling(reference: Mapping) -> dict:
    return {"heads.classifier_pooling": _OURS[reference.get("classifier_pooling") or "late"]}


def _write_pooling(config) -> dict:
    return {"classifier_pooling": next((t for t, o in _OURS.items() if o == config.heads.classifier_pooling), "late")}


GROUPS = Rule(
    ("num_key_value_heads",),
    lambda reference: {"encoder.attention.key_value_heads": reference.get("num_key_value_heads")},
    lambda config: {"num_key_value_heads": config.encoder.key_value_heads},
)

FAMILY = replace(
    llama.FAMILY,
    name="eurobert",
    architecture="EuroBertModel",
    keys={
        **{path: key for path, key in _encoder(_SIZES).items() if path != "heads.classifier_dropout"},
        "padding_id": Key("pad_token_id", 128001),
        "heads.masked_lm_bias": Key("mlp_bias", False),
    },
    fixed={
        **{path: value for path, value in _encoder(llama.FIXED).items() if path != "heads.classifier_bias"},
        "heads.classifier_activation": "gelu",
        "heads.classifier_dropout": 0.0,
        "heads.masked_lm_transform": False,
    },
    rules=(
        nomic_bert.turning_rule(10000.0, 8192),
        nomic_bert.WIDTH,
        GROUPS,
        Rule(("classifier_pooling",), _read_pooling, _write_pooling),
    ),
    required={"classifier_pooling": (*_OURS, None)},
    blocks={"encoder": Blocks(llama.block, llama.BLOCK)},
    heads={
        "text-classification": Head(
            "EuroBertForSequenceClassification", {"classifier/dense": "dense", "classifier/output": "classifier"}
        ),
        "token-classification": Head("EuroBertForTokenClassification", {"token_classifier/output": "classifier"}),
        "masked-lm": Head("EuroBertForMaskedLM", {"language_model_head": "lm_head", "masked_lm_bias": "lm_head"}),
    },
    other_heads=(),
)
