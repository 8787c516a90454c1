"""Attention by the splash kernel of JAX's Pallas on TPUs.

Its masks are static, causal or a window; beside them tokens see those of their own number, which is what padding masks
say of padding, on either side, and of packed documents. Lengths go up to whole blocks, of tokens with a number of
their own.
"""

from __future__ import annotations

import functools

LANES = 128  # of a TPU's vector unit, the smallest block
BLOCKS = (512, 256, LANES)  # the largest that divides a length is taken
INTERPRET = False  # True runs the kernel as plain operations, on any device
_REAL, _FILLING = 1, -2  # numbers of tokens; documents have 1, 2, 3, ..., padding 0, and a prompt -1


def is_short(queries: int, keys: int) -> bool:
    """Whether there is less than a block."""
    return min(queries, keys) < LANES


def obstacle(dtype: str, soft_cap, has_prompt: bool) -> str | None:
    """Why the kernel cannot, in words, or None."""
    return "the TPU's kernel knows no prompt that all documents of a row see" if has_prompt else None


def attend(query, key, value, padding_mask, pattern, soft_cap=None):
    """Attention of scaled queries to what they see.

    Args:
        query: [B, N, S, H]; `key`, `value`: [B, G, T, H].
        padding_mask: int [B, T], or None where all is real; `pattern`: the `masks.MaskPattern` of it.
        soft_cap: float c or None: scores become c * tanh(scores / c).

    Returns:
        [B, N, S, H]; NaN where a causal row has a negative number, which the kernel cannot see as a prompt's.
    """
    import jax
    import jax.numpy as jnp
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    length, keys = query.shape[2], key.shape[2]
    query, key, value = (_filled(x, axis=2, value=0) for x in (query, key, value))
    kernel = _kernel(*query.shape[1:], key.shape[2], pattern.causal, pattern.window, soft_cap)
    numbers = _numbers(padding_mask, pattern.packed, query.shape[0], length, keys)
    numbers = [_filled(x, axis=1, value=_FILLING) for x in numbers]
    context = jax.vmap(kernel)(query, key, value, segment_ids=SegmentIds(*numbers))[:, :, :length]
    if not pattern.packed or padding_mask is None:
        return context
    return jnp.where(jnp.any(padding_mask < 0), jnp.nan, context)


def _numbers(padding_mask, packed: bool, rows: int, length: int, keys: int) -> tuple:
    """Numbers of queries [B, S] and of keys [B, T]: a query sees the keys of its own."""
    import jax.numpy as jnp

    if packed and padding_mask is not None:
        return padding_mask, padding_mask
    queries = jnp.full((rows, length), _REAL, "int32")
    if padding_mask is None:
        return queries, jnp.full((rows, keys), _REAL, "int32")
    real = padding_mask != 0
    # A row without a real token sees all of it: what is nothing to anyone must still be a number.
    return queries, jnp.where(real | ~jnp.any(real, axis=1, keepdims=True), _REAL, 0).astype("int32")


def _filled(x, axis: int, value):
    """A tensor whose axis is whole blocks long."""
    import jax.numpy as jnp

    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % LANES)
    return jnp.pad(x, widths, constant_values=value) if widths[axis][1] else x


@functools.lru_cache(maxsize=64)  # of shapes that are trained in one process
def _kernel(heads: int, length: int, width: int, keys: int, causal: bool, window: int | None, soft_cap: float | None):
    """The kernel of [N, S, H], [G, T, H] and [G, T, H], whole blocks long."""
    import jax
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    shape = (length, keys)
    if window is not None:
        mask = splash.LocalMask(shape, (window - 1, 0) if causal else (window, window), offset=0)
    else:
        mask = splash.CausalMask(shape) if causal else splash.FullMask(shape)
    rows, columns = (next(block for block in BLOCKS if count % block == 0) for count in shape)
    # Heads narrower than a vector would be filled up to it in memory: queries, keys and values as much again at 64.
    layout = splash.QKVLayout.SEQ_MINOR if width % LANES else splash.QKVLayout.HEAD_DIM_MINOR
    blocks = splash.BlockSizes(
        **dict.fromkeys(("block_q", "block_q_dkv", "block_q_dq"), rows),
        **dict.fromkeys(("block_kv", "block_kv_dkv", "block_kv_dq"), columns),
        **dict.fromkeys(("q_layout", "k_layout", "v_layout"), layout),
    )
    with jax.ensure_compile_time_eval():  # it holds arrays, which outlive the trace that they are first made in
        return splash.make_splash_mha(
            splash.MultiHeadMask([mask] * heads),
            head_shards=1,
            q_seq_shards=1,
            block_sizes=blocks,
            attn_logits_soft_cap=soft_cap,
            interpret=INTERPRET,
        )
