"""Leases of nodes that do not exist, for modes with many peers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from overlayd.bench.labs import ROOMY_NETWORK
from overlayd.bench.model import Mode
from overlayd.bench.peers import compose_leases
from overlayd.core.leases.codec import parse_attributes, parse_subnet_name
from overlayd.core.network.addresses import Family, is_host_address
from overlayd.core.network.config import parse_config
from overlayd.lab.model import UNDERLAY

CONFIG = f'{{"Network": "{ROOMY_NETWORK}", "Backend": {{"Type": "vxlan"}}}}'.encode()


def test_peers_have_subnets_addresses_and_macs_of_their_own() -> None:
    count = max(mode.setup.peers for mode in Mode)
    network = IPv4Network(ROOMY_NETWORK)
    taken = {"subnets/100.64.1.0-24", "subnets/100.64.7.0-24"}
    leases = dict(compose_leases(CONFIG, taken, count))
    assert len(leases) == count
    assert not leases.keys() & taken
    attributes = [parse_attributes(value.encode()) for value in leases.values()]
    addresses = {each.public_ip(Family.IPV4) for each in attributes}
    assert len(addresses) == len({each.backend_data for each in attributes}) == count
    for address in addresses:
        assert isinstance(address, IPv4Address)
        assert address in UNDERLAY
        assert is_host_address(address)
    for name in leases:
        prefix = parse_subnet_name(name).of(Family.IPV4)
        assert isinstance(prefix, IPv4Network)
        assert prefix.subnet_of(network)


def test_no_more_peers_are_made_than_there_are_subnets() -> None:
    span = parse_config(b'{"Network": "10.244.0.0/22", "SubnetLen": 24}').ranges[0]
    assert len(list(compose_leases(b'{"Network": "10.244.0.0/22", "SubnetLen": 24}', (), 99))) == span.capacity
