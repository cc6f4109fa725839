"""The Internet checksum (RFC 1071): the ones' complement sum of 16-bit words, and its complement.

A sum is kept as a plain integer and folded once at the end.  A number written in base 2^16 and the sum of its
digits leave the same rest modulo 2^16 - 1, so one division of a long integer, at the speed of C, does for a loop.
"""

from __future__ import annotations

WORD = 0xFFFF


def total(data: bytes | memoryview) -> int:
    """Return a number that folds to the sum of `data`, an odd last byte padded with zero on its right."""
    number = int.from_bytes(data, "big")
    rest = number % WORD
    if len(data) & 1:
        rest = (rest << 8) % WORD
    return rest or (WORD if number else 0)


def fold(number: int) -> int:
    """Fold the ones' complement sum as it stands in a header: 0 only if nothing but zeros was summed."""
    return number % WORD or (WORD if number else 0)


def complement(number: int) -> int:
    """Return the checksum of whatever folds to this sum."""
    return WORD ^ fold(number)


def pseudo_header(source: int, destination: int, protocol: int, length: int) -> int:
    """Sum the fields that TCP and UDP cover beside their own bytes (RFC 9293 section 3.1, RFC 768); unfolded."""
    return (source >> 16) + (source & WORD) + (destination >> 16) + (destination & WORD) + protocol + length
