"""Attention that keeps no [B, N, S, T] tensor, where a kernel does it: cuDNN's on GPUs and splash on TPUs, on JAX.

The kernels take no additive bias without the memory that they are there to save. So the model says beside its bias what
that means (`masks.MaskPattern` of a padding mask), and the compiler drops a bias that nothing reads. What a kernel
cannot do is done by the plain formula, and said once. Source: Dao et al., 2022 (arXiv:2205.14135).

Shape letters: B batch, S query length, T key length, N query heads, G key/value heads, H head width.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math

import keras

from tfxformer.arguments.notices import warn
from tfxformer.backend import backend, on_jax
from tfxformer.layers.attention.masks import MaskPattern, Seen
from tfxformer.layers.kernels import cudnn, splash

# === What the user says ===

USES = ("auto", "always", "never")
_use = "auto"


def use_fused_attention(use: str = "auto") -> None:
    """Whether training attends by fused kernels, in this process from now on.

    Args:
        use: "auto", where a kernel can, else the plain formula, with one warning for each reason; "always", and an
            error where none can; "never". `keras.config.disable_flash_attention()` says "never", too.

    At padding, which no token reads and no loss should count, a fused causal decoder gives other numbers than the
    plain formula. Models that were compiled before keep what they have.

    Raises:
        ValueError: for another word.
    """
    global _use
    if use not in USES:
        raise ValueError(f"Unknown use {use!r} of fused attention; known: {', '.join(USES)}.")
    _use = use


# === What it runs on ===

_compiled_for = contextvars.ContextVar("compiled_for", default=None)
_has_prompt = contextvars.ContextVar("has_prompt", default=False)


@contextlib.contextmanager
def compiled_for(platform: str):
    """What is traced inside is compiled for "gpu" or "tpu", whatever this machine has."""
    token = _compiled_for.set(platform)
    try:
        yield
    finally:
        _compiled_for.reset(token)


@contextlib.contextmanager
def with_prompt_in_front(has_prompt: bool):
    """Inside, padding masks may hold the number of a prompt that all documents of a row see (`layers.prompt`)."""
    token = _has_prompt.set(has_prompt)
    try:
        yield
    finally:
        _has_prompt.reset(token)


def _platform() -> str | None:
    """ "gpu", "tpu" or "cpu" where Keras runs on JAX, else None."""
    if not on_jax():
        return None
    if _compiled_for.get() is not None:
        return _compiled_for.get()
    import jax

    found = keras.distribution.distribution()
    if found is not None:
        return found.device_mesh.backend_mesh.devices.flat[0].platform
    device = jax.config.jax_default_device
    return getattr(device, "platform", device) or jax.default_backend()


# === The choice ===


def attend(query, key, value, seen: Seen | None, scores=None, soft_cap=None, dropout=0.0):
    """softmax(query @ key^T, of what is seen) @ value by a fused kernel; None where the plain formula has to do it.

    Args:
        query: [B, N, S, H], scaled.
        key, value: [B, G, T, H].
        seen: what the bias says, or None where that cannot be told.
        scores: additive scores that are learned, or None.
        soft_cap: float or None.
        dropout: float, rate of the probabilities' dropout.

    Returns:
        [B, N, S, H], or None.

    Raises:
        ValueError: where `use_fused_attention("always")` was said and no kernel can.
    """
    if _use == "never" or keras.config.is_flash_attention_enabled() is False:
        return None
    platform = _platform()
    kernel = _KERNELS.get(platform)
    if kernel is None:
        if _use == "always":
            raise ValueError(
                f'use_fused_attention("always"): there is a kernel for GPUs and TPUs on JAX, and Keras runs on '
                f'{backend()}{f" with {platform} devices" if platform else ""}; say "auto".'
            )
        return None
    if kernel.is_short(query.shape[2], key.shape[2]):  # the plain formula is small, too
        return None
    why = _obstacle(kernel, query, key, seen, scores, soft_cap, dropout)
    if why is None:
        run = functools.partial(kernel.attend, pattern=seen.pattern, soft_cap=soft_cap)
        return _on_each_device(run, query, key, value, seen.padding_mask)
    if _use == "always":
        raise ValueError(f'use_fused_attention("always"): {why}; say "auto" for the plain formula.')
    _say_once(why, (*query.shape[:3], key.shape[2]))
    return None


_KERNELS = {"gpu": cudnn, "cuda": cudnn, "tpu": splash}


def _obstacle(kernel, query, key, seen: Seen | None, scores, soft_cap, dropout) -> str | None:
    """Why a kernel cannot, in words; None where it can."""
    if dropout:
        return (
            f"attention_dropout is {dropout}, and kernels drop no probabilities by a seed that changes from step to "
            "step: build the model with attention_dropout=0.0"
        )
    if scores is not None:
        return "scores of positions are learned, and kernels give them no gradient"
    if seen is None:
        return "the bias says more than padding, causality and a window (scores of positions, a prefix, an own order)"
    dtype = keras.backend.standardize_dtype(query.dtype)
    why = kernel.obstacle(dtype, soft_cap, _has_prompt.get())
    if why is not None:
        return why
    return _refusal(kernel, tuple(query.shape), tuple(key.shape), dtype, seen.padding_mask is None, seen.pattern)


@functools.lru_cache(maxsize=64)  # of shapes that are trained in one process
def _refusal(kernel, query_shape, key_shape, dtype, all_real: bool, pattern: MaskPattern) -> str | None:
    """A kernel's own words where it does not take such tensors, such as a head's width; None where it does."""
    import jax

    query, key = (jax.ShapeDtypeStruct(shape, dtype) for shape in (query_shape, key_shape))
    mask = None if all_real else jax.ShapeDtypeStruct((key_shape[0], key_shape[2]), "int32")

    def trained(query, key, value, mask):
        return jax.vjp(lambda *x: kernel.attend(*x, mask, pattern), query, key, value)[0]

    try:
        jax.eval_shape(trained, query, key, key, mask)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        return f"the kernel says: {error}"
    return None


def _on_each_device(run, query, key, value, padding_mask):
    """A kernel on the devices of Keras' distribution, each with its rows of the batch and its heads."""
    found = keras.distribution.distribution()
    if found is None or found.device_mesh.devices.size == 1:
        return run(query, key, value, padding_mask)
    import jax
    from jax.sharding import PartitionSpec

    mesh = found.device_mesh.backend_mesh
    rows = found.batch_dim_name if query.shape[0] % mesh.shape[found.batch_dim_name] == 0 else None
    others = [name for name in mesh.axis_names if name != found.batch_dim_name]
    parts = math.prod(mesh.shape[name] for name in others)
    heads = tuple(others) if key.shape[1] % parts == 0 else None  # as many whole groups on each, or all on each
    spec = PartitionSpec(rows, heads)
    specs = (spec, spec, spec, PartitionSpec(rows))
    # `check_vma`: a kernel does not say how its results vary among the devices.
    shared = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=spec, check_vma=False)
    return shared(query, key, value, padding_mask)


_said: set[str] = set()


def _say_once(why: str, shape: tuple) -> None:
    if why not in _said:
        _said.add(why)
        warn(
            f"Attention is not fused, and each layer keeps probabilities [B, N, S, T] for its gradient, here "
            f'{list(shape)}: {why}. layers.use_fused_attention("never") takes the plain formula without this line.'
        )
