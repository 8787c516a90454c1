"""Rotary positions against complex numbers and formulas written out pair by pair."""

import math

import batteries
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfxformer.layers import RotaryPositions
from tfxformer.layers.attention.rotary import ROTARY_KINDS, Rotary, inverse_frequencies, rotate

HEAD = 16
CASES = {
    "default": Rotary(base=500.0),
    "partial": Rotary(fraction=0.5),
    "linear": Rotary(kind="linear", factor=4.0),
    "dynamic": Rotary(kind="dynamic", factor=2.0, original_max_positions=8),
    "llama3": Rotary(base=100.0, kind="llama3", factor=8.0, original_max_positions=64),
    "longrope": Rotary(
        base=100.0,
        kind="longrope",
        factor=4.0,
        original_max_positions=8,
        short_factors=tuple(range(1, 9)),
        long_factors=tuple(range(2, 18, 2)),
    ),
    "ntk": Rotary(base=100.0, kind="ntk", factor=4.0),
    "yarn": Rotary(base=100.0, kind="yarn", factor=4.0, original_max_positions=64),
    "yarn, all said": Rotary(
        base=50.0,
        kind="yarn",
        factor=4.0,
        original_max_positions=40,
        beta_fast=4.0,
        beta_slow=0.5,
        attention_factor=1.7,
    ),
}
LONG = {"kind": "longrope", "original_max_positions": 8, "short_factors": (1.0, 2.0), "long_factors": (1.0, 2.0)}


def pair_frequency(rotary: Rotary, i: int, length: int) -> float:
    """Radians per position of pair i, from the papers' own words."""
    width = int(HEAD * rotary.fraction)
    base, factor, trained = rotary.base, rotary.factor, rotary.original_max_positions
    if rotary.kind == "dynamic" and length > trained:
        base *= (factor * length / trained - (factor - 1)) ** (width / (width - 2))
    plain = 1 / base ** (2 * i / width)
    if rotary.kind == "linear":
        return plain / factor
    if rotary.kind == "ntk":  # GTE's own words: a base that is larger, and every frequency divided by factor^(2/width)
        return 1 / (base * factor) ** (2 * i / width) / factor ** (2 / width)
    if rotary.kind == "llama3":
        wavelength = 2 * math.pi / plain
        if wavelength < trained / rotary.high_frequency_factor:
            return plain
        if wavelength > trained / rotary.low_frequency_factor:
            return plain / factor
        smooth = (trained / wavelength - rotary.low_frequency_factor) / (
            rotary.high_frequency_factor - rotary.low_frequency_factor
        )
        return (1 - smooth) * plain / factor + smooth * plain
    if rotary.kind == "longrope":
        return plain / (i + 1) / (2 if length > trained else 1)
    if rotary.kind == "yarn":

        def index_of(turns):
            return width * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

        low = max(math.floor(index_of(rotary.beta_fast)), 0)
        high = min(math.ceil(index_of(rotary.beta_slow)), width - 1)
        ramp = min(max((i - low) / (high - low), 0), 1)
        return plain / factor * ramp + plain * (1 - ramp)
    return plain


def turned(rotary: Rotary, x, positions, length):
    """Heads [B, N, S, H] turned as complex numbers."""
    width = int(HEAD * rotary.fraction)
    half = width // 2
    angles = np.array([pair_frequency(rotary, i, length) for i in range(half)]) * positions[:, None, :, None]
    usual = {"yarn": 0.1 * math.log(rotary.factor) + 1, "longrope": (1 + math.log(4) / math.log(8)) ** 0.5}
    scale = rotary.attention_factor or usual.get(rotary.kind, 1.0)
    numbers = (x[..., :half] + 1j * x[..., half:width]) * np.exp(1j * angles) * scale
    return np.concatenate([numbers.real, numbers.imag, x[..., width:]], axis=-1)


@pytest.mark.parametrize("last", [5, 11])
@pytest.mark.parametrize("name", list(CASES))
def test_equals_complex_rotation(name, last):
    """For dynamic positions, both within and beyond the trained length."""
    rotary = CASES[name]
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 3, 4, HEAD))
    positions = np.array([[0, 1, 2, 3], [last - 3, last - 2, last - 1, last]])
    cosine, sine = RotaryPositions(rotary, HEAD)(positions.astype("int32"))
    actual = rotate(x.astype("float32"), cosine, sine)
    np.testing.assert_allclose(np.asarray(actual), turned(rotary, x, positions, last + 1), atol=2e-6)


def test_every_kind_is_covered():
    assert {rotary.kind for rotary in CASES.values()} == set(ROTARY_KINDS)


@settings(deadline=None)  # JAX compiles what is called first
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 300))
def test_products_depend_on_the_distance_only(query, key, shift):
    rotary = CASES["default"]
    x, y = np.random.default_rng(query).normal(size=(2, 1, 1, 1, HEAD)).astype("float32")
    layer = RotaryPositions(rotary, HEAD)

    def product(i, j):
        turned_x, turned_y = (rotate(z, *layer(np.array([[at]], "int32"))) for z, at in ((x, i), (y, j)))
        return float(np.sum(np.asarray(turned_x) * np.asarray(turned_y)))

    assert product(query, key) == pytest.approx(product(query + shift, key + shift), abs=5e-4)


@pytest.mark.parametrize("name", list(CASES))
def test_layer(name):
    positions = np.arange(12, dtype="int32")[None].repeat(2, 0)
    batteries.check_layer(lambda dtype: RotaryPositions(CASES[name], HEAD, dtype=dtype), positions, half=False)


def test_angles_stay_float32_in_half_precision():
    """bfloat16 has no integers above 256: angles of it would be of other tokens."""
    positions = np.array([[1001, 1002]], "int32")
    low = RotaryPositions(CASES["default"], HEAD, dtype="mixed_bfloat16")(positions)
    full = RotaryPositions(CASES["default"], HEAD)(positions)
    for ours, theirs in zip(low, full, strict=True):
        assert ours.dtype == "float32"
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "proportional"}, "Unknown kind of rotary positions 'proportional'; known: default, linear"),
        ({"kind": "longrope", "original_max_positions": 8}, "short_factors are what rotary positions of kind"),
        ({"short_factors": (1.0, 2.0)}, "of kind 'longrope' have, and no others"),
        ({**LONG, "long_factors": (0.0, 1.0)}, "long_factors must be finite numbers above 0"),
        ({**LONG, "original_max_positions": None}, "'longrope' need original_max_positions"),
        ({"fraction": 0.0}, "fraction must be above 0 and at most 1"),
        ({"fraction": 1.5}, "fraction must be above 0 and at most 1"),
        ({"kind": "yarn", "factor": 2.0}, "'yarn' need original_max_positions"),
        ({"kind": "dynamic", "factor": 2.0}, "'dynamic' need original_max_positions"),
        ({"kind": "linear", "factor": 0.5}, "factor must be at least 1"),
    ],
)
def test_wrong_values(values, message):
    with pytest.raises(ValueError, match=message):
        Rotary(**values)


@pytest.mark.parametrize(("rotary", "size"), [(Rotary(), 5), (Rotary(fraction=0.1), 8), (CASES["dynamic"], 2)])
def test_widths_that_cannot_turn(rotary, size):
    with pytest.raises(ValueError, match="cannot turn in pairs"):
        RotaryPositions(rotary, size)


def test_frequencies_of_the_first_pair_are_one():
    for kind in ("default", "llama3"):  # the fastest pair is never slowed
        rotary = Rotary(kind=kind, factor=8.0, original_max_positions=8192)
        assert inverse_frequencies(rotary, 64)[0] == 1.0


def test_factors_are_one_for_each_pair():
    with pytest.raises(ValueError, match="short_factors are 2, for 8 pairs"):
        RotaryPositions(Rotary(**LONG), HEAD)
