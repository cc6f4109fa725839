"""Leases that overlap, repeat, move, vanish and return: from the store's records to a packet's way.

Three nodes look at one store, each at its own pace.  Whatever snapshot a node saw last: each address is forwarded
to the one holder that the rule names in that snapshot, or to nobody; so never to a former holder.  The rule is
told here a second time, as a slow list over the records, that knows nothing of books, plans and tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import permutations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd.core.leases.codec import encode_attributes, format_subnet_name
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.records import RecordBook, absorb_snapshot
from overlayd.core.leases.store import SUBNETS, Record, Snapshot
from overlayd.core.network.addresses import Family, Mac, Subnet
from overlayd.core.network.backend import make_view
from overlayd.core.network.config import parse_config
from overlayd.core.network.desired import state_desired
from overlayd.core.network.view import Underlay
from overlayd_backends.udp.backend import UdpBackend
from overlayd_backends.udp.engine import Engine
from overlayd_backends.udp.table import Table
from support.datapaths import IMPLEMENTATIONS, engine_class
from support.packets import Packet

CONFIG = parse_config('{"Network": "10.244.0.0/24", "SubnetLen": 28, "Backend": {"Type": "udp"}}')
NETWORK = IPv4Network("10.244.0.0/24")
NODES = {f"node{number}": IPv4Address(f"10.99.0.{number}") for number in (1, 2, 3)}

prefixes = st.sampled_from(
    [
        *(IPv4Network(f"10.244.0.{first}/28") for first in (16, 32, 48)),
        *map(
            IPv4Network, ("10.244.0.16/29", "10.244.0.24/32", "10.244.0.32/27", "10.244.0.0/26", "10.244.1.0/28")
        ),
    ]
)
"""They overlap in every way; the last one is outside the network."""
holders = st.one_of(
    st.sampled_from([Attributes((address,), "udp", node_id=name) for name, address in NODES.items()]),
    st.sampled_from(
        [
            Attributes((IPv4Address("10.99.0.9"),)),  # flannel's udp node: no backend, no id
            Attributes((NODES["node2"],)),  # one that claims the address of one of ours
            Attributes((IPv4Address("10.99.0.8"),), "vxlan", node_id="node8"),  # none that we could send to
            Attributes((IPv4Address("10.99.0.1"),), "udp", node_id="node2"),  # ours under another's address
            Attributes((), node_id="node7"),  # a reservation whose node has yet to come
            Attributes(()),  # no lease at all: it gives no address and no name
        ]
    ),
)
EDGES = sorted(
    {
        int(IPv4Address(f"10.244.0.{last}")) + step
        for last in (0, 16, 23, 24, 31, 32, 47, 48, 63, 64, 255)
        for step in (-1, 0, 1)
    }
)
ADDRESSES = [IPv4Address(address) for address in EDGES]
TO_EACH = [bytes(Packet(destination=str(address))) for address in ADDRESSES]
FEW = ADDRESSES[::4]
PAIRS = {(one, other): bytes(Packet(source=str(one), destination=str(other))) for one in FEW for other in FEW}
"""Each as a source and as a destination."""


@dataclass(frozen=True)
class Held:
    """One key of the store."""

    prefix: IPv4Network
    attributes: Attributes
    created: int
    modified: int

    @property
    def record(self) -> Record:
        subnet = Subnet((self.prefix,))
        name, value = (
            SUBNETS + format_subnet_name(subnet).removeprefix(SUBNETS),
            encode_attributes(self.attributes),
        )
        return Record(name, value, self.created, self.modified, 7 if self.attributes.public_ips else 0)


def served(records: list[Held]) -> list[Held]:
    """The rule: oldest first, each that is inside the network and overlaps none of those before."""
    found: list[Held] = []
    for one in sorted(records, key=lambda held: held.created):
        is_lease = one.attributes.public_ips or one.attributes.node_id
        if (
            is_lease
            and one.prefix.subnet_of(NETWORK)
            and not any(one.prefix.overlaps(other.prefix) for other in found)
        ):
            found.append(one)
    return found


def holder_of(address: IPv4Address, records: list[Held]) -> Held | None:
    return next((one for one in served(records) if address in one.prefix), None)


class ConflictNode:
    """A node's view of the store, and a datapath of each kind that follows it."""

    def __init__(self, name: str) -> None:
        self.name, self.address = name, NODES[name]
        self.seen = RecordBook()
        self.records: list[Held] = []
        self.own: Held | None = None
        self.engines: list[Engine] = [engine_class(kind)(False, False, False, False) for kind in IMPLEMENTATIONS]

    def look(self, revision: int, records: list[Held], believes_first: bool) -> None:
        """Absorb a snapshot; of its own leases a node believes the oldest that is served, or the very oldest, as
        it does until it knows better."""
        self.records = records
        snapshot = Snapshot(revision, None, tuple(held.record for held in records))
        self.seen = absorb_snapshot(self.seen, snapshot, asked_at=min(revision, self.seen.revision))
        mine = [held for held in sorted(records, key=lambda one: one.created) if self._is_mine(held)]
        best = mine if believes_first else [held for held in served(records) if held in mine]
        self.own = best[0] if best else None

        lease = next(
            (one for one in self.seen.book.leases if self.own and one.subnet.of(Family.IPV4) == self.own.prefix),
            None,
        )
        peers = self.seen.book.peers(CONFIG, lambda one: one.attributes.node_id == self.name)
        backend = UdpBackend()
        view = make_view(CONFIG, backend, self._underlay, Mac(bytes(6)), lease, peers, in_sync=True)
        desired = state_desired([backend], view)
        (datapath,) = (item for item in desired.base if isinstance(item, Datapath))
        table = Table.of(datapath, (item for item in desired.kernel if isinstance(item, Encap)))
        for engine in self.engines:
            engine.replace(table.packed())

    @property
    def _underlay(self) -> Underlay:
        return Underlay("eth0", self.address, (IPv4Network("10.99.0.0/16"),), 1500, self.address)

    def _is_mine(self, held: Held) -> bool:
        return held.attributes.node_id == self.name

    def ways(self, engine: Engine) -> dict[IPv4Address, IPv4Address]:
        """Whom a packet for each address is sent to."""
        sends, _ = engine.outgoing(TO_EACH, 0.0)
        return {IPv4Address(payload[16:20]): IPv4Address(peer) for peer, _, _, payload in sends}

    def lets_in(self, engine: Engine, sender: IPv4Address) -> set[tuple[IPv4Address, IPv4Address]]:
        """Which packets from a sender on the underlay come in, by inner source and destination."""
        frames = engine.incoming([(sender.packed, 0, packet) for packet in PAIRS.values()])
        return {(IPv4Address(frame[12:16]), IPv4Address(frame[16:20])) for frame in frames}

    def expected_way(self, address: IPv4Address) -> IPv4Address | None:
        """By the slow list: the holder's public address, if it can be served at all."""
        holder = holder_of(address, self.records)
        if holder is None or self._is_mine(holder) or holder.attributes.backend not in ("", "udp"):
            return None
        public = holder.attributes.public_ips
        return IPv4Address(public[0]) if public and public[0] != self.address else None

    def expects_own(self, address: IPv4Address) -> bool:
        """Believed to be ours, unless the rule serves another there."""
        if self.own is None or address not in self.own.prefix:
            return False
        others = [held for held in served(self.records) if held.attributes.public_ips and not self._is_mine(held)]
        return not any(held.prefix.overlaps(self.own.prefix) for held in others)


class Conflicts(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.revision = 1
        self.store: dict[IPv4Network, Held] = {}
        self.nodes = [ConflictNode(name) for name in NODES]

    @rule(prefix=prefixes, attributes=holders)
    def write(self, prefix: IPv4Network, attributes: Attributes) -> None:
        """A new key; or an old one that is another's from now on, as no daemon of ours would do."""
        self.revision += 1
        known = self.store.get(prefix)
        created = known.created if known is not None else self.revision
        self.store[prefix] = Held(prefix, attributes, created, self.revision)

    @rule(prefix=prefixes)
    def delete(self, prefix: IPv4Network) -> None:
        self.revision += 1
        self.store.pop(prefix, None)

    @rule(prefix=prefixes, attributes=holders)
    def claim_again(self, prefix: IPv4Network, attributes: Attributes) -> None:
        """Deleted and created: the youngest now, whatever it was."""
        self.delete(prefix)
        self.write(prefix, attributes)

    @rule(which=st.sets(st.sampled_from(range(3)), min_size=1), believes_first=st.booleans())
    def look(self, which: set[int], believes_first: bool) -> None:
        """Some nodes hear of the present; only then does anything change for them."""
        for number in which:
            node = self.nodes[number]
            node.look(self.revision, list(self.store.values()), believes_first)
            self.every_address_has_its_holder_or_none(node)
            self.a_packet_comes_in_from_its_holder_alone(node)
        self.nodes_that_saw_the_same_agree()

    def every_address_has_its_holder_or_none(self, node: ConflictNode) -> None:
        expected = {address: way for address in ADDRESSES if (way := node.expected_way(address))}
        for engine in node.engines:
            assert node.ways(engine) == expected, node.name

    def a_packet_comes_in_from_its_holder_alone(self, node: ConflictNode) -> None:
        ways = {address: node.expected_way(address) for address in FEW}
        for sender in {*NODES.values(), IPv4Address("10.99.0.9")}:
            expected = {(one, other) for one, other in PAIRS if ways[one] == sender and node.expects_own(other)}
            for engine in node.engines:
                assert node.lets_in(engine, sender) == expected, (node.name, sender)

    def nodes_that_saw_the_same_agree(self) -> None:
        for node, other in permutations(self.nodes, 2):
            if node.records != other.records:
                continue
            theirs = other.ways(other.engines[0])
            for address, way in node.ways(node.engines[0]).items():
                assert theirs.get(address, way) == way, "two nodes send one address to two places"
                assert way != other.address or address not in theirs, "what is sent to a node, it sends on: a loop"


@pytest.mark.parametrize("examples", [250, pytest.param(5_000, marks=pytest.mark.long)])
def test_each_address_goes_to_the_one_that_the_rule_names(examples: int) -> None:
    run_state_machine_as_test(
        Conflicts,
        settings=settings(settings.default, max_examples=examples, stateful_step_count=20, deadline=None),
    )
