"""What the pages of GPT-like families have in common."""

from __future__ import annotations

from collections.abc import Mapping

from tfxformer.checkpoints.family import Head, Key, Rule
from tfxformer.checkpoints.files.errors import CheckpointError
from tfxformer.checkpoints.layout import Module

HEADS_KEYS = {"heads.classifier_dropout": Key("classifier_dropout", 0.1)}

PRE_NORM = {
    "decoder.norm.placement": "pre",
    "decoder.norm.embedding": False,
    "decoder.norm.final": True,
    "heads.classifier_bias": False,
}


def answers(name: str, prefix: str | None = None) -> dict[str, Head]:
    """The head that finds answers, of a family whose classes begin with `name`.

    Args:
        prefix: what stands before backbone tensors in this class's files; None for the family's.
    """
    modules = {"span_classifier/output": "qa_outputs"}
    return {"question-answering": Head(f"{name}ForQuestionAnswering", modules, prefix)}


def padding_rule(pad: int | None = None, eos: int | None = None) -> Rule:
    """The rule of `padding_id`: the padding token, where there is none the end of the text, else 0.

    Args:
        pad, eos: what absent `pad_token_id` and `eos_token_id` mean.
    """

    def read(reference: Mapping) -> dict:
        padding, end = reference.get("pad_token_id", pad), reference.get("eos_token_id", eos)
        if padding is not None and padding != -1:  # -1 is Llama 1's "none"
            return {"padding_id": padding}
        end = end[0] if isinstance(end, list) and end else end
        fits = isinstance(end, int) and 0 <= end < (reference.get("vocab_size") or end + 1)
        return {"padding_id": end if fits else 0}

    return Rule(("pad_token_id",), read, lambda config: {"pad_token_id": config.padding_id})


def head_width(reference: Mapping, size: Key, heads: Key) -> int:
    """H, the width of a head, where no key says it.

    Raises:
        CheckpointError: for heads that are no number of at least 1.
    """
    width, count = size.read(reference), heads.read(reference)
    if not all(isinstance(number, int) and number > 0 for number in (width, count)):
        raise CheckpointError(
            f"config.json says {size.name}={width!r}, {heads.name}={count!r}; wanted numbers above 0."
        )
    return width // count


def groups_rule(default: int | None) -> Rule:
    """The rule of grouped heads as wide as D / N; `default`: what no `num_key_value_heads` means, None for N."""

    def read(reference: Mapping) -> dict:
        groups = reference.get("num_key_value_heads", default)
        return {"decoder.attention.key_value_heads": groups}

    return Rule(("num_key_value_heads",), read, lambda config: {"num_key_value_heads": config.decoder.key_value_heads})


def heads_rule(groups: int | None, width: int | None = None, heads: int = 32, size: int = 4096) -> Rule:
    """The rule of grouped heads.

    Args:
        groups: what an absent `num_key_value_heads` means; null is one for each head.
        width: what an absent `head_dim` means; None for D / N.
        heads, size: what absent `num_attention_heads` and `hidden_size` mean.
    """

    def read(reference: Mapping) -> dict:
        count, stream = reference.get("num_attention_heads") or heads, reference.get("hidden_size") or size
        key_value_heads, own = reference.get("num_key_value_heads", groups), reference.get("head_dim") or width
        return {
            "decoder.attention.key_value_heads": None if key_value_heads == count else key_value_heads,
            "decoder.attention.width": None if own is not None and own * count == stream else own,
        }

    def write(config) -> dict:
        return {"num_key_value_heads": config.decoder.key_value_heads, "head_dim": config.decoder.head_width}

    return Rule(("num_key_value_heads", "head_dim"), read, write)


def _read_causal(reference: Mapping) -> dict:
    stated = reference.get("is_causal", True)
    if stated is not None and not isinstance(stated, bool):
        raise CheckpointError(f"config.json says is_causal={stated!r}; wanted true or false.")
    return {"decoder.attention.causal": bool(stated)}  # null is false, as transformers reads it


# Whether tokens see earlier ones only; a key of every decoder of transformers, written only where it says no.
CAUSAL = Rule(("is_causal",), _read_causal, lambda config: {} if config.decoder.causal else {"is_causal": False})


def fused_attention(module: str) -> dict[str, str | Module]:
    """The projections of attention where the reference has query, key and value as one, head by head."""
    return {**fused_parts(f"{module}.query_key_value", by="heads"), "self_attention/output": f"{module}.dense"}


def fused_parts(module: str, order: tuple[str, ...] = ("query", "key", "value"), **how) -> dict[str, Module]:
    """The layers that a fused module holds in an order; `how` they lie in it is as `Module` says it."""
    return {f"self_attention/{name}": Module(module, part=part, **how) for part, name in enumerate(order)}


# A head of language models whose Dense layer has a bias; `heads.logits_bias` is True of its family.
BIASED_HEAD = {"language_model_head": "lm_head", "final_logits_bias": "lm_head"}
