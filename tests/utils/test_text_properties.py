"""Numbers, times and sizes as people type them: what comes out is exact, or the message says what was typed."""

from __future__ import annotations

import copy
import fractions
import math
import pickle
import re
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from properties import holds

from toughen.utils import units
from toughen.utils.units import Fraction, format_radius

DIGITS = st.text("0123456789", min_size=1, max_size=9)
DECIMALS = st.builds(lambda whole, part: f"{whole}.{part}" if part else whole, DIGITS, DIGITS | st.just(""))
SPACES = st.sampled_from(["", " ", "\t", "  "])
# \u0663 is an Arabic 3; \u0130 and \u212a are an I and a K to patterns that ignore case
PIECES = [
    "0",
    "1",
    "12.5",
    ".",
    "9" * 400,
    "h",
    "m",
    "s",
    "KB",
    "GiB",
    "G\u0130B",
    "\u212aB",
    "\u0663",
    "/",
    "e",
    "-",
    "_",
]
PIECES += [" ", "\n", "\x00", "nan", "inf", "x"]
TYPED = st.lists(st.sampled_from(PIECES), max_size=4).map("".join) | st.text(max_size=20)


def exact(text: str) -> fractions.Fraction:
    return fractions.Fraction(Decimal(text))


def value_or_refusal(read: Callable[[str], float], text: str) -> float | None:
    """What a text is read as; None where it is refused by a message that names it."""
    try:
        return read(text)
    except ValueError as error:
        assert repr(text.strip()) in str(error) or repr(text) in str(error)
        return None


# ---- fractions

NUMBERS = st.builds(
    lambda sign, number, exponent: sign + number + exponent,
    st.sampled_from(["", "-", "+"]),
    DECIMALS,
    st.just("") | st.integers(-60, 60).map(lambda power: f"e{power}"),
)


@holds(number=NUMBERS, divisor=NUMBERS | st.none(), before=SPACES, after=SPACES)
def test_a_fraction_is_the_quotient(number: str, divisor: str | None, before: str, after: str) -> None:
    text = number if divisor is None else f"{number}/{divisor}"
    if divisor is not None and exact(divisor) == 0:
        with pytest.raises(ValueError, match=re.escape(repr(text))):
            Fraction(before + text + after)
        return
    found = Fraction(before + text + after)
    expected = exact(number) / (1 if divisor is None else exact(divisor))
    # the parts and the quotient are rounded once each
    assert abs(fractions.Fraction(float(found)) - expected) <= abs(expected) * fractions.Fraction(4, 2**53)
    for other in (Fraction(str(found)), Fraction(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert other == found and str(other) == text


@holds(number=st.floats())
def test_a_float_is_read_back(number: float) -> None:
    found = Fraction(str(Fraction(number)))
    assert found == number or (math.isnan(found) and math.isnan(number))


@holds(text=TYPED)
def test_any_text_is_a_number_or_refused(text: str) -> None:
    found = value_or_refusal(Fraction, text)
    parts = text.strip().split("/")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    assert (found is not None) == (len(numbers) == 1 or (len(numbers) == 2 and numbers[1] != 0))


@holds(examples=255, pixels=st.integers(1, 255))
def test_a_radius_in_pixels_is_read_back_whole(pixels: int) -> None:
    assert Fraction(format_radius(pixels / 255)) == pixels / 255


@holds(eps=st.floats(1e-9, 1e4))
def test_a_radius_is_read_back_to_four_digits(eps: float) -> None:
    assert abs(Fraction(format_radius(eps)) - eps) <= 5.0001e-4 * eps


# ---- times


@holds(hours=DECIMALS | st.none(), minutes=DECIMALS | st.none(), seconds=DECIMALS | st.none(), space=SPACES)
def test_a_time_is_the_sum_of_its_parts(
    hours: str | None, minutes: str | None, seconds: str | None, space: str
) -> None:
    parts = [(part, unit, by) for part, unit, by in ((hours, "h", 3600), (minutes, "m", 60), (seconds, "s", 1)) if part]
    text = "".join(part + unit for part, unit, _ in parts)
    expected = sum((exact(part) * by for part, _, by in parts), fractions.Fraction())
    found = value_or_refusal(units.parse_duration, space + text + space)
    if expected == 0:
        assert found is None
    else:
        assert found is not None and math.isclose(found, expected, rel_tol=1e-14)


@holds(text=TYPED)
def test_any_text_is_a_time_or_refused(text: str) -> None:
    found = value_or_refusal(units.parse_duration, text)
    assert found is None or (0 < found < math.inf and re.fullmatch(r"[0-9.hms]+", text.strip()))


@holds(seconds=st.floats(1e-6, 1e11))
def test_a_time_is_read_back_in_whole_seconds(seconds: float) -> None:
    assert units.parse_duration(units.format_duration(seconds)) == math.ceil(seconds)


# ---- sizes

UNITS = {unit: 1000 ** (place + 1) for place, unit in enumerate(("KB", "MB", "GB", "TB"))}
UNITS |= {unit: 1024 ** (place + 1) for place, unit in enumerate(("KiB", "MiB", "GiB", "TiB"))}


@holds(examples=200, number=DECIMALS, unit=st.sampled_from(list(UNITS)), lower=st.booleans(), space=SPACES)
def test_a_size_is_its_number_of_units(number: str, unit: str, lower: bool, space: str) -> None:
    text = number + space + (unit.lower() if lower else unit)
    found = value_or_refusal(units.parse_size, text)
    assert (found or 0) == math.floor(exact(number) * UNITS[unit])


@holds(text=TYPED)
def test_any_text_is_a_size_or_refused(text: str) -> None:
    found = value_or_refusal(units.parse_size, text)
    assert found is None or (type(found) is int and found > 0 and text.strip().isascii())


@holds(examples=200, amount=st.integers(1, 10**17))
def test_a_size_is_read_back_to_three_digits(amount: int) -> None:
    assert math.isclose(units.parse_size(units.format_size(amount)), amount, rel_tol=0.0051)


@holds(exponent=st.integers(3, 17), off=st.integers(-5_000_000, 5_000_000))
def test_a_size_near_a_unit_is_read_back(exponent: int, off: int) -> None:
    amount = 10**exponent + off
    assume(amount > 0)
    assert math.isclose(units.parse_size(units.format_size(amount)), amount, rel_tol=0.0051)


# ---- what random input found


@pytest.mark.parametrize("text", ["9" * 400 + "h", "1" + "0" * 308 + "h", "9" * 400 + "m1s"])
def test_a_time_beyond_all_numbers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is not a duration"):
        units.parse_duration(text)


@pytest.mark.parametrize("text", ["9" * 400 + "GB", "2G\u0130B", "2\u212aB", "\u0663GB"])
def test_what_only_looks_like_a_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is not an amount of memory"):
        units.parse_size(text)


def test_sizes_are_exact() -> None:
    assert units.parse_size("1.001GB") == 1_001_000_000
    assert units.parse_size("300000.0000001TB") == 300_000_000_000_100_000


def test_a_size_is_written_without_an_exponent() -> None:
    amounts = (1, 999_499, 999_600, 999_999_999, 10**12, 5 * 10**15)
    assert [units.format_size(each) for each in amounts] == ["0.001KB", "999KB", "1MB", "1GB", "1TB", "5000TB"]
