"""Figures as people read them."""

from __future__ import annotations


def count(number: int) -> str:
    """596049920 → 596M"""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def size(bytes_: int) -> str:
    """382156480 → 382 MB"""
    for unit, letter in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if bytes_ >= unit:
            return f"{bytes_ / unit:.3g} {letter}"
    return f"{bytes_} B"
