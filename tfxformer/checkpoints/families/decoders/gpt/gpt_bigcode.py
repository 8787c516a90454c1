"""GPT-BigCode: SantaCoder (Allal et al., 2023, arXiv:2301.03988), StarCoder 1 (Li et al., 2023, arXiv:2305.06161)."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.gpt import gpt2
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, fused_parts, padding_rule
from tfxformer.checkpoints.family import Blocks, Head, Key, Rule


def _read_groups(reference: Mapping) -> dict:
    return {"decoder.attention.key_value_heads": 1 if reference.get("multi_query", True) else None}


def _write_groups(config) -> dict:
    return {"multi_query": config.decoder.key_value_heads == 1}


def _modules(config) -> dict:
    """One head of keys and values stands behind all queries; as many as of queries alternate with them."""
    one = config.decoder.key_value_heads == 1
    how = {"sizes": ("heads", "groups", "groups")} if one else {"by": "heads"}
    return {
        **fused_parts("attn.c_attn", **how),
        "self_attention/output": "attn.c_proj",
        "attention_norm": "ln_1",
        "feed_forward/expand": "mlp.c_fc",
        "feed_forward/output": "mlp.c_proj",
        "feed_forward_norm": "ln_2",
    }


FAMILY = replace(
    gpt2.FAMILY,
    name="gpt_bigcode",
    architecture="GPTBigCodeModel",
    keys={
        **{path: key for path, key in gpt2.FAMILY.keys.items() if path != "decoder.attention.scale_by_layer"},
        "decoder.feed_forward.activation": Key("activation_function", "gelu_pytorch_tanh"),
    },
    rules=(
        padding_rule(eos=50256),
        CAUSAL,
        gpt2.EMBEDDING_DROPOUT,
        gpt2.SCALE,
        Rule(("multi_query",), _read_groups, _write_groups),
    ),
    blocks={"decoder": Blocks(gpt2.block, _modules)},
    heads={
        "causal-lm": Head("GPTBigCodeForCausalLM", {"language_model_head": "lm_head"}),
        "text-classification": Head("GPTBigCodeForSequenceClassification", {"classifier/output": "score"}),
        "token-classification": Head("GPTBigCodeForTokenClassification", {"token_classifier/output": "classifier"}),
    },
    other_heads=(),
)
