"""Reads the values of a backend's options; a wrong one is named as the documentation spells it."""

from __future__ import annotations

from collections.abc import Mapping

from overlayd.core.network.backend import BackendOptionError
from overlayd.core.network.view import Underlay


def number(options: Mapping[str, object], key: str, default: int, least: int, most: int) -> int:
    """Parse a whole number between `least` and `most`, both allowed."""
    value = options.get(key.lower(), default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BackendOptionError(key, f"{value!r} is not a whole number from {least} to {most}")
    return value


def flag(options: Mapping[str, object], key: str) -> bool:
    """Parse true or false; false where it is absent."""
    value = options.get(key.lower(), False)
    if not isinstance(value, bool):
        raise BackendOptionError(key, f"{value!r} is neither true nor false")
    return value


def underlay_mtu(wanted: int | None, underlay: Underlay) -> int:
    """Take the smaller of the option MTU, if it is given, and what the underlay's interface carries; bytes."""
    return min(wanted or underlay.mtu, underlay.mtu)
