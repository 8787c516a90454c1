"""What values of options must be: said before anything is opened, with the option's name (typer adds it)."""

from __future__ import annotations

import math

import typer

DTYPES = ("float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
QUANTIZATIONS = ("float32", "float16", "dynamic_int8", "int8", "int16x8", "int4", "int4_block32")
MONITORS = ("val_loss", "val_accuracy", "val_span_accuracy", "val_mean_absolute_error")
PLATFORMS = ("android", "ios")


def positive(value: float | None) -> float | None:
    """A finite number above 0, or nothing given."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value} must be a finite number above 0.")
    return value


def share(value: float | None) -> float | None:
    """A share above 0 and below 1, or nothing given."""
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} must be a share between 0 and 1.")
    return value


def probability(value: float | None) -> float | None:
    """A share above 0 and up to 1, or nothing given."""
    if value is not None and not 0 < value <= 1:
        raise typer.BadParameter(f"{value} must be above 0 and at most 1.")
    return value


def warmup(value: float | None) -> float | None:
    """A share from 0 on and below 1, or nothing given."""
    if value is not None and not 0 <= value < 1:
        raise typer.BadParameter(f"{value} must be a share from 0 on and below 1.")
    return value


def monitor(value: str) -> str:
    """The name of what early stopping goes by."""
    return one_of(value, MONITORS)


def policy(value: str | None) -> str | None:
    """The name of a dtype policy, or nothing given."""
    return one_of(value, DTYPES)


def quantization(value: str) -> str:
    """The name of a mode of export."""
    return one_of(value, QUANTIZATIONS)


def platform(value: str) -> str:
    """The name of a platform that apps are written for."""
    return one_of(value, PLATFORMS)


def one_of(value: str | None, known: tuple[str, ...]) -> str | None:
    """A known name, or nothing given."""
    if value is not None and value not in known:
        raise typer.BadParameter(f"{value!r} must be one of {', '.join(known)}.")
    return value


def held_out(value: str | None) -> str | None:
    """A share between 0 and 1, or the name of a file, or nothing given."""
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return value
    share(number)
    return value
