"""The checksum by one long division is the one that RFC 1071 defines word by word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlayd_backends.udp.checksum import WORD, complement, fold, total
from support.packets import checksum

data = st.binary(max_size=70) | st.integers(0, 70).map(bytes) | st.integers(0, 70).map(lambda size: b"\xff" * size)


@given(data)
def test_a_sum_of_bytes(some: bytes) -> None:
    assert complement(total(some)) == checksum(some)


@given(st.lists(data, max_size=4))
def test_a_sum_of_parts(parts: list[bytes]) -> None:
    even = [part + bytes(len(part) % 2) for part in parts]
    assert complement(sum(map(total, even))) == checksum(b"".join(even))


@given(data)
def test_what_carries_its_own_checksum_folds_to_ones(some: bytes) -> None:
    even = some + bytes(len(some) % 2)
    assert fold(total(even) + complement(total(even))) == WORD
