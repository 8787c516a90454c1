"""StableLM (Bellagente et al., 2024, arXiv:2402.17834): Llama's gated halves under norms with means and biases."""

from collections.abc import Mapping

from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, HEADS_KEYS, PRE_NORM, groups_rule, padding_rule
from tfxformer.checkpoints.family import Blocks, Family, Key, Rule
from tfxformer.checkpoints.rope import rope_rule


def _read_residual(reference: Mapping) -> dict:
    return {"decoder.norm.placement": "shared" if reference.get("use_parallel_residual") else "pre"}


def _write_residual(config) -> dict:
    return {"use_parallel_residual": config.decoder.norm.placement == "shared"}


def _modules(config) -> dict:
    """Both halves of a block read one norm, where they stand side by side."""
    shared = config.decoder.norm.placement == "shared"
    return {path: name for path, name in llama.BLOCK.items() if not (shared and path == "feed_forward_norm")}


FAMILY = Family(
    name="stablelm",
    prefix="model.",
    architecture="StableLmModel",
    keys={
        **HEADS_KEYS,
        "vocabulary_size": Key("vocab_size", 50304),
        "initializer_range": Key("initializer_range", 0.02),
        "decoder.num_layers": Key("num_hidden_layers", 32),
        "decoder.hidden_size": Key("hidden_size", 2560),
        "decoder.attention.heads": Key("num_attention_heads", 32),
        "decoder.feed_forward.size": Key("intermediate_size", 6912),
        "decoder.feed_forward.activation": Key("hidden_act", "silu"),
        "decoder.norm.epsilon": Key("layer_norm_eps", 1e-5),
        "decoder.max_positions": Key("max_position_embeddings", 4096),
        "decoder.dropout": Key("hidden_dropout", 0.0),
        "decoder.attention_dropout": Key("attention_dropout", 0.0),
        "decoder.attention.bias": Key("use_qkv_bias", False),
        "heads.tied": Key("tie_word_embeddings", False),
    },
    fixed={
        **PRE_NORM,
        "decoder.embedding_dropout": 0.0,
        "decoder.attention.output_bias": False,
        "decoder.feed_forward.gated": True,
        "decoder.feed_forward.bias": False,
    },
    rules=(
        groups_rule(32),
        rope_rule(4096, fraction="partial_rotary_factor", default_fraction=0.25),
        padding_rule(eos=0),
        CAUSAL,
        Rule(("use_parallel_residual",), _read_residual, _write_residual),
    ),
    required={"qk_layernorm": (False, None)},
    modules={"token_embedding": "embed_tokens", "final_norm": "norm"},
    blocks={"decoder": Blocks(llama.block, _modules)},
    heads=llama.heads("StableLm"),
    other_heads=("qa_outputs",),
)
