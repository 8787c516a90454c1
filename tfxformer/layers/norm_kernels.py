"""The kernel of a pre-norm block's residual stream; see `kernels` for why there are kernels."""

from __future__ import annotations

from keras import ops

from tfxformer.layers import kernels


def sum_and_norm(x, residual, gamma, beta, epsilon):
    """The sum that a pre-norm block goes on with, and its normalization, which the next half reads.

    As two results of one kernel: the gradient of the stream past the norm is added in the pass that makes that of the
    norm, in place of a pass over memory of its own.

    Args:
        x: [..., D].
        residual: [..., D], what is added to it; or None, then the sum is `x` itself.
        gamma, beta: [D]; `beta` is None for RMS normalization, which does not centre.
        epsilon: float, added to the variance.

    Returns:
        (sum, normalized sum), both [..., D] in the dtype of `x`; statistics are float32 inside.
    """
    if not kernels.use_clusters():
        total = x if residual is None else x + residual
        return total, kernels._add_norm(0.0, epsilon, None, total, None, gamma, beta, None)[0]
    forward = kernels._cluster(_sum_and_norm, epsilon)
    derivative = kernels._cluster(_sum_and_norm_gradient, beta is not None)

    def run(x, residual, gamma, beta):
        total, result, normalized, scale = forward(x, residual, gamma, beta)
        return (x if residual is None else total, result), (normalized, scale, residual, gamma, beta)

    def backward(constants, kept, total_upstream, upstream):
        normalized, scale, residual, gamma, beta = kept
        gradient, product = derivative(normalized, scale, gamma, total_upstream, upstream)
        return (
            gradient,
            None if residual is None else ops.cast(gradient, residual.dtype),
            kernels._sum_rows(product, gamma),
            kernels._sum_rows(upstream, beta),
        )

    return kernels._run(run, backward, [], [x, residual, gamma, beta])


def _sum_and_norm(epsilon, x, residual, gamma, beta):
    result, normalized, scale = kernels._add_norm(0.0, epsilon, None, x, residual, gamma, beta, None)
    # Where nothing is added, the cluster would copy what the caller has.
    total = None if residual is None else ops.cast(kernels._wide(x) + kernels._wide(residual), x.dtype)
    return total, result, normalized, scale


def _sum_and_norm_gradient(centred, normalized, scale, gamma, total_upstream, upstream):
    total, _, product = kernels._add_norm_gradient(0.0, centred, None, normalized, scale, gamma, upstream)
    wide = kernels._wide(total) + kernels._wide(total_upstream)
    return ops.cast(wide, upstream.dtype), product
