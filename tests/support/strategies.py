"""Hypothesis strategies for the nouns of the core, and for what strangers might write in their place."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import strategies as st

from overlayd.core.leases.codec import encode_attributes, format_subnet_name
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.lease_record import LeaseRecord
from overlayd.core.leases.store import SUBNETS, Record
from overlayd.core.network.addresses import IPNetwork, Mac, Subnet
from overlayd.core.text.strict_json import SIZE_LIMIT

NETWORK = IPv4Network("10.244.0.0/16")
NETWORK6 = IPv6Network("fd00:10:244::/48")


def prefixes(within: IPNetwork, longest: int | None = None) -> st.SearchStrategy[IPNetwork]:
    """Any prefix of `within`, itself included, down to /`longest` (by default a single address)."""
    bits = within.max_prefixlen

    def numbered(length: int) -> st.SearchStrategy[IPNetwork]:
        numbers = st.integers(0, (1 << (length - within.prefixlen)) - 1)
        return numbers.map(lambda number: nth_prefix(within, length, number))

    return st.integers(within.prefixlen, bits if longest is None else longest).flatmap(numbered)


def nth_prefix(within: IPNetwork, length: int, number: int) -> IPNetwork:
    """Counted from the first, or, below zero, from the end."""
    number %= 1 << (length - within.prefixlen)
    kind: type[IPNetwork] = type(within)
    return kind((int(within.network_address) + (number << (within.max_prefixlen - length)), length))


def subnets(
    ipv4: IPv4Network = NETWORK, ipv6: IPv6Network = NETWORK6, longest: int | None = None
) -> st.SearchStrategy[Subnet]:
    """One prefix, or a pair of them, of any length."""
    one, other = prefixes(ipv4, longest), prefixes(ipv6, longest)
    return st.one_of(
        one.map(lambda prefix: Subnet((prefix,))),
        other.map(lambda prefix: Subnet((prefix,))),
        st.tuples(one, other).map(Subnet),
    )


words = st.text(st.characters(exclude_categories=("C", "Z")), max_size=20)
"""What a node may be called."""
macs = st.binary(min_size=6, max_size=6).map(Mac.local)
hosts = st.integers(int(IPv4Address("10.0.0.1")), int(IPv4Address("10.255.255.254"))).map(IPv4Address)
hosts6 = st.integers(1, (1 << 64) - 1).map(lambda low: IPv6Address((0xFD << 120) | low))

json_values: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


_public_ips = st.one_of(
    st.tuples(hosts),
    st.tuples(hosts6),
    st.tuples(hosts, hosts6),
)
_backend_data = st.none() | st.fixed_dictionaries(
    {}, optional={"VNI": st.integers(1, 4096), "VtepMAC": macs.map(str), "Own": json_values}
).map(compact)
_identities = st.just(("", "")) | st.tuples(words.filter(bool), words)


@st.composite
def attributes(draw: st.DrawFn) -> Attributes:
    node_id, node_name = draw(_identities)
    return Attributes(
        public_ips=draw(_public_ips),
        backend=draw(st.sampled_from(["", "vxlan", "host-gw", "wireguard"])),
        backend_data=draw(_backend_data),
        backend_v6_data=draw(_backend_data),
        node_id=node_id,
        node_name=node_name,
        incarnation=draw(st.sampled_from(["", "a1"])) if node_id else "",
    )


_revisions = st.integers(1, 40)
_lease_ids = st.sampled_from([0, 7, 8])


@st.composite
def leases(draw: st.DrawFn, of: st.SearchStrategy[Subnet] | None = None) -> LeaseRecord:
    """A lease as the store might have it; few revisions, so that ties happen."""
    created = draw(_revisions)
    return LeaseRecord(
        subnet=draw(subnets() if of is None else of),
        attributes=draw(attributes()),
        create_revision=created,
        mod_revision=draw(st.integers(created, 40)),
        lease_id=draw(_lease_ids),
    )


def record_of(lease: LeaseRecord) -> Record:
    return Record(
        format_subnet_name(lease.subnet),
        encode_attributes(lease.attributes),
        lease.create_revision,
        lease.mod_revision,
        lease.lease_id,
    )


_junk_values = st.one_of(
    st.binary(max_size=40),
    json_values.map(lambda value: compact(value).encode()),
    st.just(b" " * (SIZE_LIMIT + 1)),
    st.just(b"[" * 2000),
    st.sampled_from(
        [
            b'{"PublicIP":"10.0.0.1","PublicIP":"10.0.0.2"}',
            b'{"PublicIP":"10.0.0.1","BackendType":"\\u001b[2J"}',
            b'{"PublicIP":"010.0.0.1"}',
            b'{"PublicIP":null,"PublicIPv6":null}',
            b'{"PublicIP":NaN}',
        ]
    ),
)
_junk_names = st.one_of(
    st.text(max_size=20),
    st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){3}-[0-9]{1,3}(&[0-9a-f:]{2,20}-[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["10.244.03.0-24", "10.244.3.1-24", "10.244.3.0-24/x", "10.244.3.0-24&", "", "١٠.0.0.0-8"]),
).map(lambda name: SUBNETS + name)


@st.composite
def junk_records(draw: st.DrawFn) -> Record:
    """A key that anybody might have put beside the leases: nearly always no lease."""
    created = draw(_revisions)
    name = draw(_junk_names | subnets().map(format_subnet_name))
    return Record(name, draw(_junk_values), created, draw(st.integers(created, 40)), draw(_lease_ids))
