"""The decoders' part of `make_fixtures`: cases, inputs, odd files, and how torch is asked."""

import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

VOCABULARY_SIZE = 96
CLASSES = {
    "gpt2": "GPT2",
    "gpt_neox": "GPTNeoX",
    "opt": "OPT",
    "bloom": "Bloom",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
}


@dataclass(frozen=True)
class Case:
    """A checkpoint: its family, head, odd configuration, and what is done to its files.

    Attributes:
        family, head: keys of `make_fixtures.CLASSES` and `make_fixtures.HEADS`.
        config: keys of config.json besides the sizes.
        files: "shards" (bf16, several files); of encoders "legacy" (LayerNorm.gamma and .beta, position_ids),
            "no-pooler", "published" (in the words of the code that came with it); of decoders "old" (config.json as
            transformers 4 wrote it, buffers), "copy" (the tied head is in the file too), "own" (a head that differs,
            though config.json says tied), "bare-names" (no prefix).
        stored: whether it is one of tests/fixtures.
    """

    family: str
    head: str | None = None
    config: dict = field(default_factory=dict)
    files: str = ""
    stored: bool = False

    @property
    def attention(self) -> str:
        """The reference's implementation to compare with: Falcon's plain one adds ALiBi twice."""
        return "sdpa" if self.config.get("alibi") else "eager"


TOKENS = {"vocab_size": VOCABULARY_SIZE, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SIZES = {
    **TOKENS,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
}
GROUPED_SIZES = {**_SIZES, "num_attention_heads": 6, "num_key_value_heads": 2}
SIZES = {
    "gpt2": {**TOKENS, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 40},
    "gpt_neox": _SIZES,
    "opt": {**{key: value for key, value in _SIZES.items() if key != "intermediate_size"}, "ffn_dim": 40},
    "bloom": {**TOKENS, "hidden_size": 24, "n_layer": 2, "n_head": 3},
    "llama": GROUPED_SIZES,
    "mistral": GROUPED_SIZES,
    "qwen2": GROUPED_SIZES,
}
LM, TEXTS, WORDS = "causal-lm", "text-classification", "token-classification"
ANSWERS = "question-answering"
_ALL_ROPE = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.5},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 20,
        "rope_theta": 50.0,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10, "rope_theta": 100.0},
}


def rope(kind: str, **changes) -> dict:
    values = {"rope_parameters": {"rope_theta": 1000.0, **_ALL_ROPE[kind], **changes}}
    if kind == "dynamic":  # rows are longer than that
        values["max_position_embeddings"] = 8
    return values


TIED, OWN = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
FULL, SLIDING = "full_attention", "sliding_attention"
CASES = {
    "gpt2-lm": Case("gpt2", LM, stored=True),
    "gpt2-bare": Case("gpt2", None, {"pad_token_id": None, "eos_token_id": 50256, "activation_function": "relu"}),
    "gpt2-inner": Case(
        "gpt2", LM, {"n_inner": 48, "scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-3}
    ),
    "gpt2-unscaled": Case("gpt2", LM, {"scale_attn_weights": False, "reorder_and_upcast_attn": True}),
    "gpt2-own-head": Case("gpt2", LM, OWN),
    "gpt2-old": Case("gpt2", LM, {"activation_function": "gelu"}, files="old"),
    "gpt2-bare-names": Case("gpt2", LM, files="bare-names"),
    "gpt2-differing-head": Case("gpt2", LM, files="own"),
    "gpt2-shards": Case("gpt2", LM, files="shards"),
    "gpt2-classifier": Case("gpt2", TEXTS, {"num_labels": 3}, stored=True),
    "gpt2-tagger": Case("gpt2", WORDS, {"activation_function": "silu"}),
    "gpt2-answers": Case("gpt2", ANSWERS, {"n_layer": 1}),
    "neox-lm": Case("gpt_neox", LM, stored=True),
    "neox-bare": Case("gpt_neox"),
    "neox-sequential": Case("gpt_neox", LM, {"use_parallel_residual": False, "hidden_act": "relu"}),
    "neox-half-turned": Case(
        "gpt_neox",
        LM,
        {"rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.5}, "attention_bias": False},
    ),
    "neox-dynamic": Case("gpt_neox", LM, rope("dynamic", partial_rotary_factor=0.5)),
    "neox-linear-old": Case("gpt_neox", LM, rope("linear", partial_rotary_factor=0.5), files="old"),
    "neox-old": Case("gpt_neox", LM, {"layer_norm_eps": 1e-3}, files="old"),
    "neox-tied": Case("gpt_neox", LM, TIED),
    "neox-shards": Case("gpt_neox", LM, files="shards"),
    "neox-classifier": Case("gpt_neox", TEXTS),
    "neox-tagger": Case("gpt_neox", WORDS, {"num_labels": 4}),
    "neox-answers": Case("gpt_neox", ANSWERS, {"num_hidden_layers": 1}),
    "opt-lm": Case("opt", LM),
    "opt-bare": Case("opt", None, {"activation_function": "gelu"}),
    "opt-post-norm-projected": Case(
        "opt", LM, {"do_layer_norm_before": False, "word_embed_proj_dim": 16, "pad_token_id": 1}, stored=True
    ),
    "opt-projected": Case("opt", LM, {"word_embed_proj_dim": 16}),
    "opt-no-final-norm": Case("opt", LM, {"_remove_final_layer_norm": True}),
    "opt-no-bias": Case("opt", LM, {"enable_bias": False}),
    "opt-copy": Case("opt", LM, files="copy"),
    "opt-own-head": Case("opt", LM, {**OWN, "word_embed_proj_dim": 16}),
    "opt-classifier": Case("opt", TEXTS, {"word_embed_proj_dim": 16}),
    "opt-answers": Case("opt", ANSWERS, {"word_embed_proj_dim": 16}),
    "bloom-lm": Case("bloom", LM, stored=True),
    "bloom-bare": Case("bloom", None, {"layer_norm_epsilon": 1e-3}),
    "bloom-four-heads": Case("bloom", LM, {"n_head": 4, "pretraining_tp": 2}),
    "bloom-six-heads-old": Case("bloom", LM, {"n_head": 6}, files="old"),
    "bloom-copy": Case("bloom", LM, files="copy"),
    "bloom-classifier": Case("bloom", TEXTS),
    "bloom-tagger": Case("bloom", WORDS),
    "bloom-answers": Case("bloom", ANSWERS, {"n_layer": 1}),
    "llama-lm": Case("llama", LM, {**TIED, "rms_norm_eps": 1e-5}, stored=True),
    "llama-bare": Case("llama", None, {"pad_token_id": None, "eos_token_id": [2, 5]}),
    "llama-own-head": Case("llama", LM, OWN),
    "llama-many-heads": Case("llama", LM, {"num_key_value_heads": 6, "hidden_act": "gelu", "rms_norm_eps": 1e-3}),
    "llama-biases": Case("llama", LM, {"attention_bias": True, "mlp_bias": True}),
    "llama-one-group-wide-heads": Case("llama", LM, {"num_key_value_heads": 1, "head_dim": 10, **TIED}),
    "llama-linear": Case("llama", LM, rope("linear")),
    "llama-dynamic": Case("llama", LM, rope("dynamic")),
    "llama-llama3": Case("llama", LM, {**rope("llama3"), "head_dim": 12, "num_hidden_layers": 1}, stored=True),
    "llama-yarn": Case("llama", LM, {**rope("yarn"), "head_dim": 12}),
    "llama-yarn-scaled": Case(
        "llama", LM, {**rope("yarn", beta_fast=4.0, beta_slow=0.5, attention_factor=1.3), "head_dim": 12}
    ),
    "llama-yarn-mscale": Case("llama", LM, {**rope("yarn", mscale=0.7, mscale_all_dim=1.5), "head_dim": 12}),
    "llama-old": Case("llama", LM, files="old"),
    "llama-linear-old": Case("llama", LM, rope("linear"), files="old"),
    "llama-dynamic-old": Case("llama", LM, rope("dynamic"), files="old"),
    "llama-llama3-old": Case("llama", LM, rope("llama3"), files="old"),
    "llama-yarn-old": Case("llama", LM, rope("yarn"), files="old"),
    "llama-copy": Case("llama", LM, TIED, files="copy"),
    "llama-differing-head": Case("llama", LM, TIED, files="own"),
    "llama-shards": Case("llama", LM, TIED, files="shards"),
    "llama-classifier": Case("llama", TEXTS, {"num_labels": 3}),
    "llama-tagger": Case("llama", WORDS, {"num_labels": 3}),
    "llama-answers": Case("llama", ANSWERS, {"num_hidden_layers": 1}),
    "mistral-window": Case("mistral", LM, {"sliding_window": 4}),
    "mistral-no-window": Case("mistral", LM, {"sliding_window": None, "head_dim": 6}, files="shards"),
    "mistral-bare": Case("mistral", None, {"sliding_window": 5, **rope("linear")}),
    "mistral-classifier": Case("mistral", TEXTS, {"sliding_window": 4}),
    "mistral-answers": Case("mistral", ANSWERS, {"sliding_window": 4}),
    "qwen2-lm": Case("qwen2", LM, TIED),
    "qwen2-window": Case("qwen2", LM, WINDOW, stored=True),
    "qwen2-window-old": Case("qwen2", LM, {**WINDOW, **rope("yarn")}, files="old"),
    "qwen2-layer-types": Case(
        "qwen2",
        LM,
        {
            **WINDOW,
            "num_hidden_layers": 3,
            "layer_types": [SLIDING, FULL, SLIDING],
        },
    ),
    "qwen2-all-windows": Case("qwen2", None, {**WINDOW, "max_window_layers": 0}),
    "qwen2-classifier": Case("qwen2", TEXTS),
    "qwen2-tagger": Case("qwen2", WORDS),
    "qwen2-answers": Case("qwen2", ANSWERS, {"num_hidden_layers": 1}),
}


def make_inputs(case: Case, generator) -> dict:
    """A batch: a full row, one with padding on the left, one with padding on the right and a hidden token inside."""
    token_ids = generator.integers(5, VOCABULARY_SIZE, (3, 12)).astype("int32")
    mask = np.ones((3, 12), "int32")
    mask[1, :4] = 0
    mask[2, 5] = mask[2, 10:] = 0
    token_ids[mask == 0] = case.config.get("pad_token_id") or 0
    return {"token_ids": token_ids, "padding_mask": mask}


def run(model, inputs: dict) -> dict:
    """Torch's hidden states [L, B, S, D] but for the last, its sequence output, and logits where it has a head.

    Positions count real tokens, as `generate` has them in transformers; its bare forward pass counts padding too.
    """
    import torch

    tensors = {
        "input_ids": torch.tensor(inputs["token_ids"].astype("int64")),
        "attention_mask": torch.tensor(inputs["padding_mask"].astype("int64")),
    }
    if model.config.model_type not in ("opt", "bloom"):  # these two count real tokens themselves
        tensors["position_ids"] = (tensors["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    hook = None
    if (
        "position_ids" in tensors.keys() - inspect.signature(model.forward).parameters.keys()
    ):  # Falcon's classifiers hand none on
        positions = {"position_ids": tensors.pop("position_ids")}
        hook = model.base_model.register_forward_pre_hook(
            lambda module, args, kwargs: (args, {**kwargs, **positions}), with_kwargs=True
        )
    with torch.no_grad():
        outputs = model(**tensors, output_hidden_states=True)
    if hook is not None:
        hook.remove()
    *states, last = outputs.hidden_states
    results = {"hidden_states": torch.stack(states).numpy(), "sequence_output": last.numpy()}
    if outputs.get("start_logits") is not None:
        results["logits"] = torch.stack([outputs.start_logits, outputs.end_logits], -1).numpy()
    if outputs.get("logits") is not None:
        results["logits"] = outputs.logits.numpy()
    return results


def save(case: Case, model, folder: Path):
    """Writes the checkpoint's folder as the case wants its files; returns what transformers reads there."""
    import torch
    from safetensors.torch import load_file, save_file

    if case.files == "shards":
        model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="6KB")
    else:
        model.save_pretrained(folder)
        path = folder / "model.safetensors"
        tensors = load_file(path)
        _change(case, model, tensors)
        save_file(tensors, path, metadata={"format": "pt"})
    if case.files == "old":
        path = folder / "config.json"
        path.write_text(json.dumps(_old_config(json.loads(path.read_text())), indent=2) + "\n")
    read = type(model).from_pretrained(folder, attn_implementation=case.attention, dtype=torch.float32)
    return read.eval()


def _change(case: Case, model, tensors: dict) -> None:
    import torch

    prefix = f"{model.base_model_prefix}."
    if case.files == "old":
        square = torch.ones(1, 1, 40, 40, dtype=torch.bool)
        layer = {"gpt2": "transformer.h.1.attn", "gpt_neox": "gpt_neox.layers.1.attention"}.get(case.family)
        if layer:
            tensors |= {f"{layer}.bias": square, f"{layer}.masked_bias": torch.tensor(-1e9)}
        if case.family in ("gpt_neox", "llama", "qwen2"):
            module = layer or "model.layers.1.self_attn"
            tensors[f"{module}.rotary_emb.inv_freq"] = torch.ones(4)
    if case.files in ("copy", "own"):
        table = model.get_input_embeddings().weight.detach()
        tensors["lm_head.weight"] = table.clone() if case.files == "copy" else table.flip(0).contiguous()
    if case.files == "bare-names":
        for name in [name for name in tensors if name.startswith(prefix)]:
            tensors[name.removeprefix(prefix)] = tensors.pop(name)


def _old_config(config: dict) -> dict:
    """A config.json in the spelling of transformers 4."""
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    if config["model_type"] == "bloom":
        config["n_embed"] = config.pop("hidden_size")
        config["num_attention_heads"] = config.pop("n_head")
    rope = config.pop("rope_parameters", None)
    if rope is None:
        return config
    if "full_attention" in rope:
        return _older_rope_by_kind(config, rope)
    is_neox = config["model_type"] == "gpt_neox"
    config["rotary_emb_base" if is_neox else "rope_theta"] = rope.pop("rope_theta")
    if is_neox:
        config["rotary_pct"] = rope.pop("partial_rotary_factor")
    elif "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    kind = rope.pop("rope_type")
    if kind == "default":
        return config
    spelling = "type" if kind in ("linear", "dynamic") else "rope_type"  # two generations of them
    return {**config, "rope_scaling": {**rope, spelling: kind}}


def _older_rope_by_kind(config: dict, parameters: dict) -> dict:
    """A config.json in the spelling of transformers 4, of rotary positions by kind."""
    full, sliding = dict(parameters["full_attention"]), parameters["sliding_attention"]
    config |= {"rope_theta": full.pop("rope_theta"), "rope_local_base_freq": sliding["rope_theta"]}
    return config if full["rope_type"] == "default" else {**config, "rope_scaling": full}
