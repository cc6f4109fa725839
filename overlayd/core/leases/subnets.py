"""Choosing a subnet: the wanted one if it can be had, else any free one, each with the same chance.

flannel draws from the first 100 free subnets.  Here all free ones are drawn from: of n daemons that start at
once and read the same snapshot, two pick the same subnet with chance 1/free instead of 1/100, so in a /16 cut
into /24 far fewer claims are lost and picked again; and a subnet given up a moment ago, whose addresses others
may still hold in caches, is not the next to be handed out.  What is lost is only that low subnets fill first,
which nothing relies on.

In a dual-stack network the n-th IPv4 subnet goes with the n-th IPv6 subnet.  So under one config two pairs are
equal, and then they are one key, or disjoint in both halves: a claim that creates its key collides with nobody.

Free means: overlaps no lease, of whatever length.  All is computed in subnet numbers (0 is the first subnet of
the range), as intervals of integers: neither a large network nor many leases cost more than sorting the leases.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from overlayd.core.network.addresses import IPNetwork, Subnet
from overlayd.core.network.config import NetworkConfig, Range


def choose_subnet(
    config: NetworkConfig, taken: Iterable[Subnet], prefer: Subnet | None, chance: float
) -> Subnet | None:
    """Choose a subnet that overlaps none of `taken`, or None if there is none left.

    `prefer` is chosen if it can be; else `chance` decides, a random number with 0 ≤ chance < 1.
    """
    blocked = _blocked(config, taken)
    preferred = None if prefer is None else find_number(config, prefer)
    if preferred is not None and not any(first <= preferred <= last for first, last in blocked):
        return prefer
    free = config.capacity - sum(last - first + 1 for first, last in blocked)
    if free <= 0:
        return None
    number = int(chance * free)
    for first, last in blocked:
        if number < first:
            break
        number += last - first + 1
    return subnet_at(config, number)


def subnet_at(config: NetworkConfig, number: int) -> Subnet:
    """Return the subnet of this number, 0 ≤ number < capacity."""
    return Subnet(tuple(_prefix(span, number) for span in config.ranges))


def find_number(config: NetworkConfig, subnet: Subnet) -> int | None:
    """Find the number of this subnet; None if it is none of the config's, or no pair of its."""
    span = config.ranges[0]
    prefix = subnet.of(span.family)
    number = -1 if prefix is None else _number(span, prefix)
    return number if 0 <= number < config.capacity and subnet_at(config, number) == subnet else None


def find_config_mismatch(config: NetworkConfig, subnet: Subnet) -> str | None:
    """Tell why a node can't lease this subnet under this config, as the end of a sentence about it; None if it
    can."""
    for span in config.ranges:
        prefix = subnet.of(span.family)
        if prefix is None:
            return f"has no part in {span.network}"
        if prefix.prefixlen != span.subnet_len:
            return f"is not a /{span.subnet_len}"
        if not 0 <= _number(span, prefix) < span.capacity:
            return f"is outside {span.first} to {_prefix(span, span.capacity - 1)}"
    if len(subnet.prefixes) > len(config.ranges):
        return "has a part of a family that is off"
    return None


def _prefix(span: Range, number: int) -> IPNetwork:
    kind = IPv4Network if span.network.version == 4 else IPv6Network
    return kind((int(span.first) + number * span.step, span.subnet_len))


def _number(span: Range, prefix: IPNetwork) -> int:
    return (int(prefix.network_address) - int(span.first)) // span.step


def _blocked(config: NetworkConfig, taken: Iterable[Subnet]) -> list[tuple[int, int]]:
    """Return the subnet numbers that are taken: disjoint intervals, ends included, in order."""
    capacity = config.capacity
    spans = {span.network.version: span for span in config.ranges}
    intervals = []
    for subnet in taken:
        for prefix in subnet.prefixes:
            span = spans.get(prefix.version)
            if span is None:
                continue
            first = _number(span, prefix)
            size = 1 << (prefix.max_prefixlen - prefix.prefixlen)
            last = (int(prefix.network_address) + size - 1 - int(span.first)) // span.step
            if last >= 0 and first < capacity:
                intervals.append((max(first, 0), min(last, capacity - 1)))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
