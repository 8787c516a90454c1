"""The text part of Gemma 3 (Gemma Team, 2025, arXiv:2503.19786), and EmbeddingGemma (arXiv:2509.20354)."""

from collections.abc import Mapping
from dataclasses import replace

from tfxformer.checkpoints.families.decoders.kinds import rope_by_kind_rule, windows_rule
from tfxformer.checkpoints.families.decoders.llama import gemma, llama
from tfxformer.checkpoints.families.decoders.shared import heads_rule, padding_rule
from tfxformer.checkpoints.families.nested import Nested
from tfxformer.checkpoints.family import Blocks, Key, Rule

_WINDOWS, _SLIDING = windows_rule(26, 4096, 6), "decoder.attention.sliding"


def _read_seen(reference: Mapping) -> dict:
    """Tokens see earlier ones only, or (EmbeddingGemma) all of both sides, of a window half."""
    causal, found = not reference.get("use_bidirectional_attention"), _WINDOWS.read(reference)
    if not causal and found[_SLIDING]["window"] is not None:
        found[_SLIDING] = {"window": found[_SLIDING]["window"] // 2}
    return {**found, "decoder.attention.causal": causal}


def _write_seen(config) -> dict:
    written, causal = _WINDOWS.write(config), config.decoder.causal
    windowed = any(one.window is not None for one in config.decoder.attention.values())
    written["sliding_window"] *= 1 if causal or not windowed else 2
    return {**written, "use_bidirectional_attention": not causal}


FAMILY = replace(
    gemma.GEMMA2,
    name="gemma3_text",
    architecture="Gemma3TextModel",
    keys={
        **gemma.sizes(262208, 26, 2304, 8, 9216, 131072),
        "heads.logit_soft_cap": Key("final_logit_softcapping", None),
    },
    fixed={**gemma.GEMMA2.fixed, "decoder.attention.query_key_norm": "head"},
    rules=(
        heads_rule(4, 256, 8, 2304),
        gemma.SCALE,
        gemma.scaled_embeddings(2304),
        Rule((*_WINDOWS.keys, "use_bidirectional_attention"), _read_seen, _write_seen),
        rope_by_kind_rule(131072, 1e6, 1e4, "rope_local_base_freq"),
        padding_rule(pad=0, eos=1),
    ),
    required={"token_classification_bias": (True, None), "is_causal": (True,)},
    blocks={"decoder": Blocks(llama.block, {**gemma.SANDWICH, **llama.QUERY_KEY_NORMS})},
    heads={
        task: replace(head, architecture="Gemma3ForCausalLM") if task == "causal-lm" else head
        for task, head in llama.heads("Gemma3Text").items()
        if task != "token-classification"
    },
)
# The text part of a model that reads images, too: it is saved as a `gemma3_text`.
WITH_IMAGES = Nested(
    name="gemma3",
    family=FAMILY.name,
    key="text_config",
    architectures={"Gemma3ForConditionalGeneration": "Gemma3ForCausalLM", "Gemma3Model": FAMILY.architecture},
    renamed={
        "language_model.model.": "model.",
        "language_model.lm_head.": "lm_head.",
        "model.language_model.": "model.",
    },
    left_out=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
)
