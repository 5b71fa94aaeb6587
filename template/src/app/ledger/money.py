"""Money as whole numbers, so that every store adds it exactly: a unit is 10⁻¹² US dollars."""

from decimal import ROUND_CEILING, Decimal

UNITS = Decimal(10) ** 12
"""Of a dollar. A price of one millionth of a dollar for a million tokens is one unit a token."""
LARGEST = 10**17
"""Units, 100,000 dollars: what one query can count for, so that sums stay within 64 bits."""


def units(dollars: Decimal) -> int:
    """Whole units, rounded up."""
    return _rounded_up(dollars * UNITS)


def of_query(dollars: Decimal) -> int:
    """The units of one query; no more than `LARGEST`, whatever an upstream reports."""
    exact = dollars * UNITS
    if abs(exact) >= LARGEST:
        return LARGEST if dollars > 0 else -LARGEST
    return _rounded_up(exact)


def dollars(units: int) -> Decimal:
    """US dollars."""
    return Decimal(units) / UNITS


def _rounded_up(exact: Decimal) -> int:
    return int(exact.to_integral_value(ROUND_CEILING))
