"""Names of llama.cpp's for architectures, their metadata and modules, and the reference's: a row for each.

Source: llama.cpp, `conversion/` and `gguf-py/gguf/constants.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """What llama.cpp calls by one name.

    Attributes:
        keys: metadata key (without the architecture) -> key of config.json; all must be there.
        ignored: metadata keys that say nothing a model needs; any other one is an error.
        constants: what config.json says beside them.
        modules: GGUF module -> the reference's; "{i}" is the block.
        rotary: whether positions are rotated.
        biases: key of config.json -> the part of the names by whose biases it is known; of others the class says it.
        factors: tensors that are no weights but factors of rotary frequencies, read into config.json.
        partial: whether fewer channels of a head than all may turn.
        permuted: modules whose rows are stored in pairs for the rotation, with the metadata key of their heads.
        transposed: modules that the reference stores as [in, out].
        model_type: of config.json; None where it is the name.
        optional: metadata key -> key of config.json, and what its absence means.
        largest: layers of the one model whose scores are scaled by hidden size per head instead of a head's width.
        sliding_theta: base of the rotary positions of layers with a window, where the others have one of their own.
        offset: what llama.cpp adds to norms (Gemma's are 1 + gamma in the reference).
    """

    name: str
    causal_lm: str
    keys: Mapping[str, str]
    constants: Mapping[str, Any]
    modules: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    rotary: bool = True
    factors: tuple[str, ...] = ()
    partial: bool = False
    biases: Mapping[str, str] | None = None
    permuted: Mapping[str, str] | None = None
    transposed: tuple[str, ...] = ()
    model_type: str | None = None
    optional: Mapping[str, tuple[str, Any]] | None = None
    largest: int | None = None
    sliding_theta: float | None = None
    offset: float = 0.0


_LLAMA_KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_LLAMA_MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{i}.attn_norm": "model.layers.{i}.input_layernorm",
    "blk.{i}.attn_q": "model.layers.{i}.self_attn.q_proj",
    "blk.{i}.attn_k": "model.layers.{i}.self_attn.k_proj",
    "blk.{i}.attn_v": "model.layers.{i}.self_attn.v_proj",
    "blk.{i}.attn_output": "model.layers.{i}.self_attn.o_proj",
    "blk.{i}.ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "blk.{i}.ffn_gate": "model.layers.{i}.mlp.gate_proj",
    "blk.{i}.ffn_up": "model.layers.{i}.mlp.up_proj",
    "blk.{i}.ffn_down": "model.layers.{i}.mlp.down_proj",
}
_GEMMA = {"hidden_activation": "gelu_pytorch_tanh"}
_WINDOW = {"attention.sliding_window": "sliding_window"}
_SANDWICH_MODULES = {
    **_LLAMA_MODULES,
    "blk.{i}.post_attention_norm": "model.layers.{i}.post_attention_layernorm",
    "blk.{i}.ffn_norm": "model.layers.{i}.pre_feedforward_layernorm",
    "blk.{i}.post_ffw_norm": "model.layers.{i}.post_feedforward_layernorm",
}
_FUSED = ("q", "k", "v", "gate", "up")
_PHI3_MODULES = {
    **{
        ours: theirs for ours, theirs in _LLAMA_MODULES.items() if not ours.endswith(("_q", "_k", "_v", "_gate", "_up"))
    },
    "blk.{i}.attn_qkv": "model.layers.{i}.self_attn.qkv_proj",
    "blk.{i}.ffn_up": "model.layers.{i}.mlp.gate_up_proj",
}
_OPTIONAL_WINDOW = {"attention.sliding_window": ("sliding_window", 0)}  # 0 is none
_HEAD_NORMS = {
    "blk.{i}.attn_q_norm": "model.layers.{i}.self_attn.q_norm",
    "blk.{i}.attn_k_norm": "model.layers.{i}.self_attn.k_norm",
}
ROPE_FREQUENCIES = "rope_freqs.weight"  # Llama 3's scaling, as the factor of each frequency
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"  # LongRoPE's
# Who converted the file, how; and sizes that the tensors themselves say.
_IGNORED = ("vocab_size", "tensor_data_layout", "rope.scaling.finetuned")

ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="llama",
            causal_lm="LlamaForCausalLM",
            keys=_LLAMA_KEYS,
            constants={"hidden_act": "silu"},
            modules=_LLAMA_MODULES,
            ignored=_IGNORED,
            biases={"attention_bias": "self_attn", "mlp_bias": "mlp"},
            factors=(ROPE_FREQUENCIES,),
            permuted={"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"},
        ),
        Architecture(
            name="qwen2",
            causal_lm="Qwen2ForCausalLM",
            keys=_LLAMA_KEYS,
            constants={"hidden_act": "silu", "use_sliding_window": False},
            modules=_LLAMA_MODULES,
            ignored=_IGNORED,
        ),
        Architecture(
            name="qwen3",
            causal_lm="Qwen3ForCausalLM",
            keys=_LLAMA_KEYS,
            constants={"hidden_act": "silu", "use_sliding_window": False},
            modules={**_LLAMA_MODULES, **_HEAD_NORMS},
            ignored=_IGNORED,
            biases={"attention_bias": "self_attn"},
        ),
        Architecture(
            name="gemma",
            causal_lm="GemmaForCausalLM",
            keys=_LLAMA_KEYS,
            constants=_GEMMA,
            modules=_LLAMA_MODULES,
            ignored=_IGNORED,
            offset=1.0,
        ),
        Architecture(
            name="gemma2",
            causal_lm="Gemma2ForCausalLM",
            keys=_LLAMA_KEYS,
            constants=_GEMMA,
            modules=_SANDWICH_MODULES,
            ignored=_IGNORED,
            optional={
                "attention.sliding_window": ("sliding_window", 4096),
                "attn_logit_softcapping": ("attn_logit_softcapping", 50.0),
                "final_logit_softcapping": ("final_logit_softcapping", 30.0),
            },
            largest=46,
            offset=1.0,
        ),
        Architecture(
            name="gemma3",
            model_type="gemma3_text",
            causal_lm="Gemma3ForCausalLM",
            keys={**_LLAMA_KEYS, **_WINDOW},
            constants=_GEMMA,
            modules={**_SANDWICH_MODULES, **_HEAD_NORMS},
            ignored=_IGNORED,
            largest=62,
            sliding_theta=10000.0,
            offset=1.0,
        ),
        Architecture(
            name="phi3",
            causal_lm="Phi3ForCausalLM",
            keys=_LLAMA_KEYS,
            constants={"hidden_act": "silu"},
            modules=_PHI3_MODULES,
            ignored=_IGNORED,
            optional=_OPTIONAL_WINDOW,
            factors=(LONG_FACTORS, SHORT_FACTORS),
            partial=True,
        ),
        Architecture(
            name="gpt2",
            causal_lm="GPT2LMHeadModel",
            keys={
                "context_length": "n_positions",
                "embedding_length": "n_embd",
                "block_count": "n_layer",
                "feed_forward_length": "n_inner",
                "attention.head_count": "n_head",
                "attention.layer_norm_epsilon": "layer_norm_epsilon",
            },
            constants={"activation_function": "gelu_new"},
            modules={
                "token_embd": "transformer.wte",
                "position_embd": "transformer.wpe",
                "output_norm": "transformer.ln_f",
                "output": "lm_head",
                "blk.{i}.attn_norm": "transformer.h.{i}.ln_1",
                "blk.{i}.attn_qkv": "transformer.h.{i}.attn.c_attn",
                "blk.{i}.attn_output": "transformer.h.{i}.attn.c_proj",
                "blk.{i}.ffn_norm": "transformer.h.{i}.ln_2",
                "blk.{i}.ffn_up": "transformer.h.{i}.mlp.c_fc",
                "blk.{i}.ffn_down": "transformer.h.{i}.mlp.c_proj",
            },
            ignored=_IGNORED,
            rotary=False,
            transposed=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
        ),
    )
}
