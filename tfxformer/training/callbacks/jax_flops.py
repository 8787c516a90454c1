"""The floating-point operations of a function on JAX, counted as `flops` counts them in TensorFlow's graph."""

from __future__ import annotations

import math
from collections.abc import Callable

_NO_GRADIENT = ("stop_gradient",)
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # parameters that hold the operations of one call
_REPEATED = ("while", "cond")


def count_products(function, needed: list, given: list, refuse: Callable[[str], Exception]) -> int:
    """Operations of the matrix products and convolutions of `function(needed, given)`, forward and backward.

    Args:
        function: of two lists of arrays.
        needed, given: their shapes and dtypes; gradients are wanted of the first.
        refuse: makes the error, of a sentence, for products that run as often as data say.
    """
    import jax

    traced = jax.make_jaxpr(function)(needed, given)
    needs = [True] * len(needed) + [False] * len(given)
    return _count(traced.jaxpr, needs, refuse)[0]


def _count(jaxpr, inputs_need: list[bool], refuse) -> tuple[int, list[bool]]:
    """Operations, and which outputs depend on what needs a gradient."""
    needs = dict(zip(jaxpr.invars, inputs_need, strict=True))

    def needed(atom) -> bool:
        return not hasattr(atom, "val") and needs.get(atom, False)  # a literal has a value

    total = 0
    for equation in jaxpr.eqns:
        given, name = [needed(atom) for atom in equation.invars], equation.primitive.name
        inner = _inner(equation)
        if name in _REPEATED:
            for branch in equation.params.get("branches", (equation.params.get("body_jaxpr"),)):
                if _count(branch.jaxpr, [False] * len(branch.jaxpr.invars), refuse)[0]:
                    raise refuse(f"Products stand inside a {name} of JAX, which runs as often as its data say")
            made = [any(given)] * len(equation.outvars)
        elif name == "scan":
            given = _steady(inner, given, equation.params, refuse)
            found, made = _count(inner, given, refuse)
            total += found * equation.params["length"]
        elif inner is not None and len(inner.invars) == len(given):
            found, made = _count(inner, given, refuse)
            total += found
        else:
            total += _product(equation) * (1 + sum(given[:2]))
            made = [any(given) and name not in _NO_GRADIENT] * len(equation.outvars)
        for variable, need in zip(equation.outvars, made, strict=True):
            needs[variable] = need and "float" in variable.aval.dtype.name
    return total, [needed(atom) for atom in jaxpr.outvars]


def _steady(inner, given: list[bool], params: dict, refuse) -> list[bool]:
    """What needs a gradient in any step of a scan: its state may come to depend on a weight in a later one."""
    first, size = params["num_consts"], params["num_carry"]
    while True:
        state = _count(inner, given, refuse)[1][:size]
        more = [before or after for before, after in zip(given[first : first + size], state, strict=True)]
        if more == given[first : first + size]:
            return given
        given = [*given[:first], *more, *given[first + size :]]


def _inner(equation):
    for name in _INNER:
        found = equation.params.get(name)
        if found is not None:
            return getattr(found, "jaxpr", found)
    return None


def _product(equation) -> int:
    """Operations of one equation; 0 of what is no product."""
    output = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * output * math.prod(shape[axis] for axis in contracted)
    if equation.primitive.name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
        return 2 * output * math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    return 0
