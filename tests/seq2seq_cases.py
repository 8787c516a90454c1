"""Tiny encoder-decoders of transformers, one for each page and odd switch, and what transformers computes with them.

Run by hand, where transformers is installed, `python tests/seq2seq_cases.py` writes those of `STORED` into fixtures/.
"""

import json
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parent / "fixtures"
VOCABULARY, LENGTH, TARGETS = 90, 16, 9
_ALL = {"vocab_size": VOCABULARY, "d_model": 24, "eos_token_id": 2, "decoder_start_token_id": 2}
_T5 = {
    **{"num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 30, "pad_token_id": 0, "decoder_start_token_id": 0},
    **{"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12},
}
_BART = {
    **{"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 2},
    **{"encoder_ffn_dim": 30, "decoder_ffn_dim": 40, "max_position_embeddings": 40, "pad_token_id": 1},
}
_GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
# name -> (transformers' names of config and model, keys of the config)
CASES = {
    "t5": ("T5", "T5ForConditionalGeneration", _T5),
    "t5-gated": ("T5", "T5ForConditionalGeneration", {**_T5, **_GATED}),
    "t5-silu": ("T5", "T5ForConditionalGeneration", {**_T5, "feed_forward_proj": "gated-silu"}),
    "mt5": ("MT5", "MT5ForConditionalGeneration", {**_T5, **_GATED}),
    "umt5": ("UMT5", "UMT5ForConditionalGeneration", {**_T5, **_GATED}),
    "bart": ("Bart", "BartForConditionalGeneration", _BART),
    "bart-scaled": (
        *("Bart", "BartForConditionalGeneration"),
        {**_BART, "scale_embedding": True, "activation_function": "relu", "forced_bos_token_id": 0},
    ),
    "plbart": ("PLBart", "PLBartForConditionalGeneration", _BART),
    "mbart": ("MBart", "MBartForConditionalGeneration", {**_BART, "activation_function": "relu"}),
    "pegasus": ("Pegasus", "PegasusForConditionalGeneration", {**_BART, "pad_token_id": 0}),
    "marian": ("Marian", "MarianMTModel", {**_BART, "activation_function": "swish", "scale_embedding": True}),
    "marian-two-vocabularies": (
        *("Marian", "MarianMTModel"),
        {**_BART, "share_encoder_decoder_embeddings": False, "decoder_vocab_size": VOCABULARY + 30},
    ),
    "marian-three-tables": (
        *("Marian", "MarianMTModel"),
        {
            **{**_BART, "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
            **{"vocab_size": VOCABULARY + 20, "decoder_vocab_size": VOCABULARY},
        },
    ),
    "m2m_100": ("M2M100", "M2M100ForConditionalGeneration", _BART),
    "blenderbot": ("Blenderbot", "BlenderbotForConditionalGeneration", {**_BART, "pad_token_id": 0}),
    "blenderbot-small": (
        *("BlenderbotSmall", "BlenderbotSmallForConditionalGeneration"),
        {**_BART, "pad_token_id": 0, "scale_embedding": True},
    ),
}
STORED = ("t5-gated", "bart-scaled")
COMPUTED = ("Pegasus", "Marian", "M2M100")  # whose positions are sines, which stay


def keys_of(name: str) -> dict:
    """The keys of a case's config.json."""
    return {**_ALL, **CASES[name][2]}


def reference(name: str, **changes):
    """The model of transformers, every parameter and buffer of numbers moved; `changes` are other keys."""
    import torch
    import transformers

    family, architecture, _ = CASES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**keys_of(name), **changes})
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if not (family in COMPUTED and "embed_positions" in path):
                parameter.add_(torch.randn_like(parameter) * 0.12)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.add_(torch.randn_like(model.final_logits_bias))
    return model


def batch(padding_id: int, seed: int = 0) -> dict:
    """Three sources, one of them padded, and what is written so far."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(3, VOCABULARY, (3, LENGTH)).astype("int32")
    mask = np.ones_like(ids)
    ids[1, 10:], mask[1, 10:] = padding_id, 0
    written = generator.integers(3, VOCABULARY, (3, TARGETS)).astype("int32")
    return {
        "encoder_token_ids": ids,
        "encoder_padding_mask": mask,
        "decoder_token_ids": written,
        "decoder_padding_mask": np.ones_like(written),
    }


def tensors(inputs: dict) -> dict:
    """A batch as transformers names it."""
    import torch

    names = {
        "encoder_token_ids": "input_ids",
        "encoder_padding_mask": "attention_mask",
        "decoder_token_ids": "decoder_input_ids",
    }
    return {theirs: torch.from_numpy(inputs[ours]).long() for ours, theirs in names.items() if ours in inputs}


def results(model, inputs: dict) -> dict:
    """Logits and the encoder's output, as transformers computes them."""
    import torch

    with torch.inference_mode():
        outputs = model(**tensors(inputs))
    return {"logits": outputs.logits.numpy(), "encoder_output": outputs.encoder_last_hidden_state.numpy()}


def main():
    for name in STORED:
        model, folder = reference(name), FIXTURES / f"seq2seq-{name}"
        model.save_pretrained(folder)
        inputs = batch(json.loads((folder / "config.json").read_text())["pad_token_id"])
        np.savez_compressed(
            folder / "expected.npz", **{f"input_{key}": x for key, x in inputs.items()}, **results(model, inputs)
        )


if __name__ == "__main__":
    main()
