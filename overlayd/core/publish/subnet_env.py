"""`subnet.env`, the file that tells flannel's CNI plugin the node's subnet and MTU, and a restarted daemon the
subnet that it had.

The text is flannel's, byte for byte; a family that is off has no line.  SUBNET is the first usable address of
the subnet, which the CNI bridge takes, with the subnet's length.
"""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface

from overlayd.core.network.addresses import Family, IPNetwork, Subnet
from overlayd.core.network.config import NetworkConfig
from overlayd.core.text.strict_json import quoted

_INFIX = {Family.IPV4: "", Family.IPV6: "IPV6_"}


class SubnetEnvError(ValueError):
    """The text is not a subnet.env; the message says which line and why."""


def format_subnet_env(config: NetworkConfig, subnet: Subnet, mtu: int, ipmasq: bool = False) -> str:
    """Format the file's text for a node that holds `subnet`; `mtu`, in bytes, is what pods may use."""
    lines = []
    for family, infix in _INFIX.items():
        span, prefix = config.range_of(family), subnet.of(family)
        if span is not None and prefix is not None:
            lines.append(f"FLANNEL_{infix}NETWORK={span.network}")
            lines.append(f"FLANNEL_{infix}SUBNET={_first_usable(prefix)}")
    lines += [f"FLANNEL_MTU={mtu}", f"FLANNEL_IPMASQ={'true' if ipmasq else 'false'}"]
    return "".join(f"{line}\n" for line in lines)


def parse_subnet_env(text: str) -> Subnet:
    """Parse the subnet that a subnet.env gives this node.  Comments, blank lines and other names are skipped.

    Raises SubnetEnvError.
    """
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals:
            raise SubnetEnvError(f"line {number} is {quoted(line.strip())}, not NAME=value")
        if name in values:
            raise SubnetEnvError(f"line {number} gives {quoted(name)} a second time")
        values[name] = value
    names = {family: f"FLANNEL_{infix}SUBNET" for family, infix in _INFIX.items()}
    given = [(family, name, values[name]) for family, name in names.items() if name in values]
    if not given:
        raise SubnetEnvError(f"there is no line {' or '.join(names.values())}")
    return Subnet(tuple(_prefix(family, name, value) for family, name, value in given))


def _first_usable(prefix: IPNetwork) -> str:
    return f"{prefix.network_address + 1}/{prefix.prefixlen}"


def _prefix(family: Family, name: str, value: str) -> IPNetwork:
    kind = IPv4Interface if family is Family.IPV4 else IPv6Interface
    try:
        prefix = kind(value).network
    except ValueError as error:
        example = {Family.IPV4: "10.244.3.1/24", Family.IPV6: "fd00:10:244:3::1/64"}[family]
        raise SubnetEnvError(f"{name} is {quoted(value)}, not an address like {example}") from error
    if prefix.prefixlen > prefix.max_prefixlen - 2:
        raise SubnetEnvError(f"{name} is {quoted(value)}, which leaves fewer than four addresses")
    if value != _first_usable(prefix):
        raise SubnetEnvError(
            f"{name} is {quoted(value)}, not the first address of {prefix}: {_first_usable(prefix)}"
        )
    return prefix
