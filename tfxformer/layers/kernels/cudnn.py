"""Attention by cuDNN on NVIDIA GPUs, through JAX.

Causal rows with their padding on the right, or with none, need no mask: no real token sees what stands behind it. Which
rows these are is known when the step runs, so both ways are compiled, and `lax.cond` takes one.
"""

from __future__ import annotations

DTYPES = ("bfloat16", "float16")
IMPLEMENTATION = "cudnn"  # of `jax.nn.dot_product_attention`; "xla" computes the same on any device
_KEPT = "dot_product_attention_fwd"  # the beginning of the name of what cuDNN's backward pass needs the results of


def is_short(queries: int, keys: int) -> bool:
    """Whether the scores are as small as the queries."""
    return queries == 1 or keys == 1


def obstacle(dtype: str, soft_cap, has_prompt: bool) -> str | None:
    """Why the kernel cannot, in words, or None."""
    if dtype not in DTYPES:
        return (
            f'cuDNN attends in {" or ".join(DTYPES)} and this is {dtype}: build the model with dtype="mixed_bfloat16"'
        )
    return None if soft_cap is None else "cuDNN has no soft cap of scores"


def attend(query, key, value, padding_mask, pattern, soft_cap=None):
    """Attention of scaled queries to what they see.

    Args:
        query: [B, N, S, H]; `key`, `value`: [B, G, T, H].
        padding_mask: int [B, T], or None where all is real; `pattern`: the `masks.MaskPattern` of it.
        soft_cap: None.

    Returns:
        [B, N, S, H]. Where rows are padded on the right and causal, padding sees the tokens before it.
    """
    import jax
    import jax.numpy as jnp

    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))  # [B, n, S, H] -> [B, S, n, H]
    length, keys = query.shape[1], key.shape[1]

    def run(query, key, value, **seen):
        return jax.nn.dot_product_attention(query, key, value, scale=1.0, implementation=IMPLEMENTATION, **seen)

    def without_mask(query, key, value, padding_mask):
        if pattern.causal:
            window = None if pattern.window is None else (pattern.window - 1, 0)  # without the token itself
            return run(query, key, value, is_causal=True, local_window_size=window)
        if padding_mask is None:
            return run(query, key, value)
        lengths = jnp.sum(padding_mask, axis=1, dtype="int32")
        # A row without a real token sees all of it: what is nothing to anyone must still be a number.
        return run(query, key, value, key_value_seq_lengths=jnp.where(lengths == 0, keys, lengths))

    def with_mask(query, key, value, padding_mask):
        visible = pattern.visible(padding_mask, length, keys)
        return run(query, key, value, mask=jnp.broadcast_to(visible, (visible.shape[0], length, keys))[:, None])

    windowed_both_ways = pattern.window is not None and not pattern.causal  # which cuDNN has not
    if windowed_both_ways:
        context = _without_kept_masks(with_mask)(query, key, value, padding_mask)
    elif padding_mask is None:
        context = without_mask(query, key, value, None)
    else:
        ways = (_without_kept_masks(with_mask), _without_kept_masks(without_mask))
        usual = padded_on_the_right(padding_mask)
        context = jax.lax.switch(usual.astype("int32"), ways, query, key, value, padding_mask)
    return jnp.swapaxes(context, 1, 2)


def padded_on_the_right(padding_mask):
    """Whether all rows of int [B, S] are ones, then zeros: bool []."""
    import jax.numpy as jnp

    one_or_zero = (padding_mask == 0) | (padding_mask == 1)
    return jnp.all(one_or_zero) & jnp.all(padding_mask[:, 1:] <= padding_mask[:, :-1])


def _without_kept_masks(function):
    # A mask is made again in the backward pass. Kept, it would be among the residuals of both ways of the condition.
    import jax

    return jax.checkpoint(function, policy=lambda primitive, *_, **__: primitive.name.startswith(_KEPT))
