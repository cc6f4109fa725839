"""The forwarding table: disjoint or refused, and every address is where a slow list says."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd_backends.udp.table import EMPTY, Lookup, Place, Table, TableEntry
from support.strategies import prefixes

FEW = IPv4Network("10.244.0.0/28")
EDGES = [IPv4Network("0.0.0.0/30"), IPv4Network("255.255.255.252/30")]
"""The first and the last addresses that there are."""
networks = st.one_of(*map(prefixes, [FEW, *EDGES])).map(lambda prefix: IPv4Network(str(prefix)))
peers = st.integers(1, 4).map(lambda number: IPv4Address(f"10.99.0.{number}"))
entries = st.lists(st.builds(TableEntry, networks, peers, st.integers(1, 0xFFFF)), max_size=4).map(tuple)
owned = st.lists(networks, max_size=2).map(tuple)
addresses = [address for network in (FEW, *EDGES) for address in network]


def do_overlap(own: tuple[IPv4Network, ...], others: tuple[TableEntry, ...]) -> bool:
    every = [*own, *(entry.prefix for entry in others)]
    return any(one.overlaps(other) for one, other in combinations(every, 2))


@given(owned, entries)
def test_every_address_is_where_a_slow_list_says(
    own: tuple[IPv4Network, ...], others: tuple[TableEntry, ...]
) -> None:
    if do_overlap(own, others):
        with pytest.raises(ValueError, match="overlap"):
            Table(own, others)
        return
    lookup = Lookup(Table(own, others).packed())
    for address in addresses:
        places = {Place(entry.peer.packed, entry.port) for entry in others if address in entry.prefix}
        assert lookup.find(int(address)) == (places.pop() if places else None)
        assert lookup.is_own(int(address)) == any(address in prefix for prefix in own)
    assert lookup.peers == {entry.peer.packed for entry in others}


@given(owned, entries, st.randoms(use_true_random=False))
def test_the_order_of_the_parts_means_nothing(
    own: tuple[IPv4Network, ...],
    others: tuple[TableEntry, ...],
    random: Random,
) -> None:
    if not do_overlap(own, others):
        shuffled = random.sample(others, len(others))
        assert Table(own, tuple(shuffled)).packed() == Table(own[::-1], others).packed()


def test_the_empty_table_knows_nobody() -> None:
    lookup = Lookup(EMPTY)
    assert not lookup.peers
    assert lookup.find(0) is None
    assert not lookup.is_own(0)


def test_a_table_is_what_the_items_say() -> None:
    own, theirs = IPv4Network("10.244.1.0/24"), IPv4Network("10.244.2.0/24")
    local, peer = IPv4Address("10.99.0.1"), IPv4Address("10.99.0.2")
    datapath = Datapath("ovl.udp", local, 8285, (own,))
    encap = Encap("ovl.udp", theirs, peer, 8286)
    assert Table.of(datapath, [encap]) == Table((own,), (TableEntry(theirs, peer, 8286),))
    with pytest.raises(ValueError, match=r"10\.244\.1\.0/24 and 10\.244\.1\.0/24 overlap"):
        Table.of(datapath, [Encap("ovl.udp", own, peer, 8285)])
    with pytest.raises(ValueError, match="IPv4 alone"):
        Table.of(datapath, [Encap("ovl.udp", IPv6Network("fd00::/64"), peer, 8285)])
