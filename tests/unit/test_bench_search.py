"""The search for the rate without loss, on paths whose capacity is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.bench.search import FULL_SPEED, TOLERANCE, Trial, find_next, highest_rate, lossless_rate

SENDER = 200_000.0
"""Datagrams a second that the sender manages at most."""


def attempt(rate: float, capacity: float, overrun: float) -> Trial:
    """One second on a path that carries `capacity`, and `overrun` of that once it is asked for more."""
    sent = min(rate, SENDER) if rate != FULL_SPEED else SENDER
    received = sent if sent <= capacity else capacity * overrun
    return Trial(rate, round(sent), round(received), 1.0)


def search(capacity: float, overrun: float, most: int) -> list[Trial]:
    trials: list[Trial] = []
    while (rate := find_next(trials, most)) is not None:
        trials.append(attempt(rate, capacity, overrun))
    return trials


@given(capacity=st.floats(2_000, 190_000), overrun=st.floats(0.2, 1.0))
def test_it_finds_the_capacity_of_a_path_that_loses_what_is_too_much(capacity: float, overrun: float) -> None:
    found = lossless_rate(search(capacity, overrun, 20))
    assert capacity * 0.94 <= found <= capacity * (1 + 2 * TOLERANCE)


@given(capacity=st.floats(0, 300_000), overrun=st.floats(0, 1), most=st.integers(1, 8))
def test_it_ends(capacity: float, overrun: float, most: int) -> None:
    trials = search(capacity, overrun, most)
    assert 1 <= len(trials) <= most


def test_a_path_faster_than_the_sender_needs_one_trial() -> None:
    [only] = search(capacity=300_000, overrun=1, most=8)
    assert only.asked == FULL_SPEED
    assert lossless_rate([only]) == SENDER


@pytest.mark.parametrize(("received", "clean"), [(1000, True), (990, True), (989, False), (0, False)])
def test_one_in_a_hundred_may_be_lost(received: int, clean: bool) -> None:
    assert Trial(1000, 1000, received, 1.0).is_clean is clean


def test_the_most_that_arrives_is_counted_whatever_was_lost() -> None:
    trials = [Trial(0, 9000, 3000, 1.0), Trial(1700, 1700, 1700, 1.0), Trial(3900, 3900, 3500, 1.0)]
    assert (highest_rate(trials), lossless_rate(trials)) == (3500, 1700)


def test_nothing_sent_is_not_clean() -> None:
    assert not Trial(1000, 0, 0, 1.0).is_clean


def test_where_no_trial_was_clean_the_rate_is_nil() -> None:
    assert lossless_rate([Trial(0, 1000, 10, 1.0)]) == 0
