"""Phi-3, 3.5 and 4-mini (Abdin et al., 2024, arXiv:2404.14219)."""

from dataclasses import replace

from tfxformer.checkpoints.families.decoders.kinds import window_rule
from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import CAUSAL, heads_rule, padding_rule
from tfxformer.checkpoints.family import Blocks, Key
from tfxformer.checkpoints.layout import Module
from tfxformer.checkpoints.rope import rope_rule

GATE_UP = {
    f"feed_forward/{ours}": Module("mlp.gate_up_proj", part=part, sizes=(1, 1))
    for part, ours in enumerate(("gate", "expand"))
}
_QUERY_KEY_VALUE = {
    f"self_attention/{ours}": Module("self_attn.qkv_proj", part=part, sizes=("heads", "groups", "groups"))
    for part, ours in enumerate(("query", "key", "value"))
}

FAMILY = replace(
    llama.FAMILY,
    name="phi3",
    architecture="Phi3Model",
    keys={
        **llama.without_biases(llama.sizes(32064, 32, 3072, 32, 8192, 4096, epsilon=1e-5)),
        "decoder.dropout": Key("resid_pdrop", 0.0),
        "decoder.embedding_dropout": Key("embd_pdrop", 0.0),
    },
    fixed={**{path: value for path, value in llama.FIXED.items() if path != "decoder.dropout"}, **llama.NO_BIASES},
    rules=(
        heads_rule(None, None, 32, 3072),
        rope_rule(4096, fraction="partial_rotary_factor", words={"su": "longrope", "yarn": "longrope"}),
        padding_rule(pad=32000, eos=32000),
        CAUSAL,
        window_rule(None),
    ),
    blocks={"decoder": Blocks(llama.block, {**llama.BLOCK, **_QUERY_KEY_VALUE, **GATE_UP})},
    heads=llama.heads("Phi3"),
)
