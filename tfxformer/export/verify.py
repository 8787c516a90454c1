"""No file leaves unverified: operators, weights, and outputs against Keras on samples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfxformer.export.batches import in_groups
from tfxformer.export.convert import Converted
from tfxformer.export.errors import ExportError
from tfxformer.export.plan import Plan
from tfxformer.export.quantization.quantize import Mode
from tfxformer.runtime.format import flatbuffer
from tfxformer.runtime.quiet import quiet

LEAST_WEIGHTS = 0.95  # of the bytes that the weights of the outputs take in the mode


@dataclass(frozen=True)
class Measured:
    """What verification measured of one signature.

    Attributes:
        error: float, relative L2 distance of the outputs from Keras over all samples.
        constant_bytes: int, bytes of the constants the outputs depend on.
        samples: int, number of samples.
        agreement: float or None, of a decoder the share of tokens after which the file's most likely next token is
            Keras'.
    """

    error: float
    constant_bytes: int
    samples: int
    agreement: float | None = None


def verify(converted: Converted, plans: list[Plan], mode: Mode) -> dict[str, Measured]:
    """Checks a converted file; returns what was measured by signature.

    Raises:
        ExportError: naming the figure, what was wanted, and the way out.
    """
    constants = check_content(converted, [plan.signature.name for plan in plans], mode)
    runners = open_runners(converted.content)
    measured = {}
    for plan in plans:
        name = plan.signature.name
        with quiet():  # LiteRT makes its delegate in the first call, and says so
            error = check_outputs(plan, runners[name], mode)
        measured[name] = Measured(error, constants[name], len(plan.samples))
    return measured


def check_content(converted: Converted, names: list[str], mode: Mode) -> dict[str, int]:
    """Checks the operators and the weights of a file; returns the bytes of constants by signature.

    Raises:
        ExportError: naming what is missing or foreign.
    """
    model = flatbuffer.read(converted.content)
    check_operators(model)
    found = flatbuffer.signatures(model)
    constants = {}
    for name in names:
        if name not in found:
            raise ExportError(f"The converter lost the signature {name!r}; the file has {sorted(found)}.")
        constants[name] = check_weights(
            name,
            flatbuffer.constant_bytes(model, found[name].subgraph),
            converted.weight_elements[name],
            mode,
        )
    return constants


def check_operators(model) -> None:
    """Refuses what a plain runtime has not, and hidden state.

    Raises:
        ExportError: naming the operators.
    """
    foreign = flatbuffer.foreign_operators(model)
    if any(name.endswith(("VAR_HANDLE", "_VARIABLE")) for name in foreign):
        raise ExportError(
            f"The file reads variables ({', '.join(foreign)}) in place of constants: its weights would be "
            "empty. No file was written."
        )
    if foreign:
        raise ExportError(
            f"The file has operators that LiteRT does not have itself: {', '.join(foreign)}. No file was written."
        )


def check_weights(name: str, found: int, elements: int, mode: Mode) -> int:
    """Refuses a signature whose constants are smaller than its weights; returns the bytes found.

    Raises:
        ExportError: naming both figures.
    """
    wanted = int(elements * mode.weight_bytes)
    if found < LEAST_WEIGHTS * wanted:
        raise ExportError(
            f"Signature {name!r} holds {found:,} bytes of constants, but its outputs use {elements:,} weights"
            f" of at least {wanted:,} bytes in {mode.name}: weights are missing. No file was written."
        )
    return found


def open_runners(content: bytes) -> dict:
    """The signature runners of a file by name, from an interpreter with LiteRT's default delegate."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(model_content=content, num_threads=min(4, os.cpu_count() or 1))
        return {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}


def check_outputs(plan: Plan, runner, mode: Mode) -> float:
    """Runs the samples and compares them with Keras; returns the relative L2 error of the worst output.

    Raises:
        ExportError: if an output is not finite or the error exceeds the mode's tolerance.
    """
    if not plan.samples:
        raise ValueError("There is no sample to verify the file on: pass at least one text in samples=.")
    name, difference, size = plan.signature.name, {}, {}
    for batch, reference in zip(plan.samples, _references(plan), strict=True):
        outputs = runner(**batch)
        valid = batch["padding_mask"][0].astype(bool) if plan.per_token else slice(None)
        for key, wanted in reference.items():
            wanted = np.asarray(wanted, np.float64)
            got = np.asarray(outputs[key], np.float64).reshape(wanted.shape)
            if plan.per_token:
                wanted, got = wanted[:, valid], got[:, valid]
            check_finite(name, key, got, wanted, mode)
            difference[key] = difference.get(key, 0.0) + float(np.square(got - wanted).sum())
            size[key] = size.get(key, 0.0) + float(np.square(wanted).sum())
    worst = max(difference, key=lambda key: relative(difference[key], size[key]))
    return check_error(name, worst, difference[worst], size[worst], len(plan.samples), mode)


def _references(plan: Plan) -> Iterator[dict]:
    """What Keras says of each sample."""
    for group in in_groups(plan.samples, plan.together):
        found = plan.reference(group)
        count = len(next(iter(group.values())))
        yield from [found] if count == 1 else ({name: x[i : i + 1] for name, x in found.items()} for i in range(count))


def check_error(name: str, key: str, difference: float, size: float, samples: int, mode: Mode) -> float:
    """The relative L2 error, from sums of squares.

    Raises:
        ExportError: if it exceeds the mode's tolerance.
    """
    error = relative(difference, size)
    if error > mode.tolerance:
        ways = [f"quantization={mode.instead}"] if mode.instead else []
        ways += ["more representative texts"] if mode.calibrated else []
        ways += ['calibration="percentile"', "float_layers=1 or more"] if mode.name == "int8" else []
        ways += ["the model on these samples: an untrained one quantizes badly"]
        ways += ["tolerance=... if you have measured that so much error does no harm"]
        raise ExportError(
            f"Signature {name!r}, output {key!r}: relative L2 error {error:.2e} against Keras on "
            f"{samples} samples, but {mode.name} allows {mode.tolerance:g}. No file was written. "
            f"Try {', '.join(ways)}."
        )
    return error


def check_finite(name: str, key: str, got, wanted, mode: Mode) -> None:
    """Refuses NaN and infinity, saying on which side they are.

    Raises:
        ExportError: naming the output.
    """
    if not np.isfinite(wanted).all():
        raise ExportError(f"Keras itself gives NaN or infinity in {key!r}; repair the model before exporting it.")
    if not np.isfinite(got).all():
        raise ExportError(
            f"Signature {name!r} gives NaN or infinity in {key!r} in {mode.name}, Keras does not. No file was written."
        )


def relative(squared_difference: float, squared_size: float) -> float:
    """Relative L2 distance; infinite when only the reference is zero."""
    if squared_difference == 0.0:
        return 0.0
    return float(np.sqrt(squared_difference / squared_size)) if squared_size else float("inf")


def check_unchanged(content: bytes, verified: bytes, plans: list[Plan]) -> None:
    """Makes sure that editing a verified file (metadata, a hidden output) changed none of the numbers left.

    Raises:
        ExportError: if an output differs in one bit.
    """
    edited, before = open_runners(content), open_runners(verified)
    for plan in plans:
        name, batch = plan.signature.name, plan.samples[0]
        with quiet():
            wanted, got = before[name](**batch), edited[name](**batch)
        for key, value in got.items():
            if not np.array_equal(value, wanted[key], equal_nan=True):
                raise ExportError(f"Writing the metadata changed output {key!r} of {name!r}. No file was written.")
