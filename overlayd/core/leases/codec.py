"""Lease records: the key that names a subnet, and the value that tells its holder's attributes.

Both are flannel's, byte for byte, so that flannel and overlayd nodes read one another's.  overlayd adds one
field at the end of the value, `Overlayd`, which flannel skips.

Anyone with access to the store can write anything here, so reading is strict: exactly one text names a subnet
(no leading zero, no host bits), and what could mislead a terminal, a log or a route table is refused.  Every
refusal is a RecordError with one short printable reason.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.lease_record import Hold, LeaseRecord
from overlayd.core.leases.store import HELD, SUBNETS, Record
from overlayd.core.network.addresses import Family, IPAddress, IPNetwork, Subnet, is_host_address
from overlayd.core.text.strict_json import JsonError, folded, parse_json, quoted

NAME_LIMIT = 80
"""Characters in a key; the longest has 71."""
WORD_LIMIT = 253
"""Characters in a node's name, its id, or a backend's type: the longest host name (RFC 1035 section 2.3.4)."""

_NAME = re.compile(r"([0-9.]+)-([0-9]+)(?:&([0-9a-f:]+)-([0-9]+))?")
_ABSENT = "0.0.0.0"
"""What flannel writes where a node has no IPv4 address; `0.0.0.0-0` where it has no IPv4 subnet."""


class RecordError(ValueError):
    """A key or value that is no lease; the message is the end of a sentence about it."""


def parse_subnet_name(name: str) -> Subnet:
    """Read `subnets/10.244.3.0-24` or `subnets/10.244.22.0-24&fd00:10:244:15::-64`.  Raises RecordError."""
    plain = name.startswith(SUBNETS) and len(name) <= NAME_LIMIT
    match = _NAME.fullmatch(name.removeprefix(SUBNETS)) if plain else None
    if match is None:
        raise RecordError(f"is not named like {SUBNETS}10.244.3.0-24")
    address, length, address6, length6 = match.groups()
    try:
        prefixes: list[IPNetwork] = []
        if (address, length) != (_ABSENT, "0"):
            prefixes.append(IPv4Network(f"{address}/{length}"))
        if address6 is not None:
            prefixes.append(IPv6Network(f"{address6}/{length6}"))
        subnet = Subnet(tuple(prefixes))
    except ValueError as error:
        raise RecordError(f"names no subnet: {error}") from error
    if format_subnet_name(subnet) != name:
        raise RecordError(f"is another spelling of {format_subnet_name(subnet)}")
    return subnet


def format_subnet_name(subnet: Subnet) -> str:
    """Format the key under which a lease of this subnet stands, relative to the prefix."""
    halves = [f"{_ABSENT}-0"] if subnet.of(Family.IPV4) is None else []
    halves += [f"{prefix.network_address}-{prefix.prefixlen}" for prefix in subnet.prefixes]
    return SUBNETS + "&".join(halves)


def parse_lease(record: Record) -> LeaseRecord:
    """Read a whole record.  Raises RecordError."""
    return LeaseRecord(
        subnet=parse_subnet_name(record.name),
        attributes=parse_attributes(record.value),
        create_revision=record.create_revision,
        mod_revision=record.mod_revision,
        lease_id=record.lease_id,
    )


def parse_attributes(value: bytes) -> Attributes:
    """Read a lease's value.  Unknown fields are skipped; flannel up to 0.11 wrote no PublicIPv6.

    Raises RecordError.
    """
    try:
        members, repeated = parse_json(value)
    except JsonError as error:
        raise RecordError(str(error)) from error
    if not isinstance(members, dict):
        raise RecordError("is not a JSON object")
    if repeated:
        raise RecordError(f"gives {quoted(repeated[0])} more than once")
    fields = {key: given for key, (_, given) in folded(members).items()}
    ips = [
        _address("PublicIP", fields.get("publicip"), IPv4Address),
        _address("PublicIPv6", fields.get("publicipv6"), IPv6Address),
    ]
    public_ips = tuple(ip for ip in ips if ip is not None)
    node_id, node_name, incarnation = _identity(fields.get("overlayd"))
    if not public_ips and not node_id:  # a reservation for a node that has yet to come has but its id
        raise RecordError("gives neither PublicIP nor PublicIPv6")
    return Attributes(
        public_ips=public_ips,
        backend=_word("BackendType", fields.get("backendtype")),
        backend_data=_canonical(fields.get("backenddata")),
        backend_v6_data=_canonical(fields.get("backendv6data")),
        node_id=node_id,
        node_name=node_name,
        incarnation=incarnation,
    )


def encode_attributes(attributes: Attributes) -> bytes:
    """Encode a lease's value as flannel writes it: its order of fields, no spaces, no newline, empty fields left
    out."""
    ipv4, ipv6 = attributes.public_ip(Family.IPV4), attributes.public_ip(Family.IPV6)
    fields = [f'"PublicIP":"{ipv4 or _ABSENT}"', f'"PublicIPv6":"{ipv6}"' if ipv6 else '"PublicIPv6":null']
    if attributes.backend:
        fields.append(f'"BackendType":{json.dumps(attributes.backend)}')
    if attributes.backend_data is not None:
        fields.append(f'"BackendData":{attributes.backend_data}')
    if attributes.backend_v6_data is not None:
        fields.append(f'"BackendV6Data":{attributes.backend_v6_data}')
    if attributes.node_id:
        own = {"NodeID": attributes.node_id, "NodeName": attributes.node_name}
        if attributes.incarnation:
            own["Incarnation"] = attributes.incarnation
        fields.append(f'"Overlayd":{_compact(own)}')
    return f"{{{','.join(fields)}}}".encode()


@lru_cache  # each step of the keeper asks it of the same attributes
def check_writable(attributes: Attributes) -> None:
    """Check that these attributes, written and read again, are the same; else RecordError: a node that can't read
    its own record would believe it gone, and claim another."""
    if parse_attributes(encode_attributes(attributes)) != attributes:
        raise RecordError("reads differently than it was written")


def format_hold_name(subnet: Subnet) -> str:
    """Format the key by which a node holds the reservation of this subnet, relative to the prefix."""
    return HELD + format_subnet_name(subnet).removeprefix(SUBNETS)


def parse_hold_name(name: str) -> Subnet:
    """Parse the subnet whose reservation this key holds.  Raises RecordError."""
    return parse_subnet_name(SUBNETS + name.removeprefix(HELD))


def encode_hold(attributes: Attributes) -> bytes:
    """Encode the value of such a key: who holds it."""
    return _compact({"NodeID": attributes.node_id, "Incarnation": attributes.incarnation}).encode()


def parse_hold(record: Record) -> Hold:
    """Read such a key.  Raises RecordError."""
    try:
        members, repeated = parse_json(record.value)
    except JsonError as error:
        raise RecordError(str(error)) from error
    if repeated or not isinstance(members, dict):
        raise RecordError("is not a JSON object with each key once")
    node_id, _, incarnation = _identity(members)
    return Hold(
        parse_hold_name(record.name),
        node_id,
        incarnation,
        record.create_revision,
        record.mod_revision,
        record.lease_id,
    )


def _identity(given: object) -> tuple[str, str, str]:
    """Parse NodeID, NodeName and Incarnation; "" for an absent one."""
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise RecordError("gives an Overlayd that is not a JSON object")
    words = {key: word for key, (_, word) in folded(given).items()}
    return (
        _word("Overlayd.NodeID", words.get("nodeid")),
        _word("Overlayd.NodeName", words.get("nodename")),
        _word("Overlayd.Incarnation", words.get("incarnation")),
    )


def _address(key: str, given: object, kind: type[IPv4Address | IPv6Address]) -> IPAddress | None:
    if given is None or given == _ABSENT:
        return None
    try:
        address = kind(given if isinstance(given, str) and "%" not in given else "")
    except ValueError as error:
        raise RecordError(
            f"gives {key} {quoted(given)}, which is no IPv{4 if kind is IPv4Address else 6} address"
        ) from error
    if str(address) != given:
        raise RecordError(f"gives {key} {quoted(given)}, which is written {address}")
    if not is_host_address(address):
        raise RecordError(f"gives {key} {address}, which is no address of a host")
    return address


def is_word(text: str) -> bool:
    """Tell whether this can stand for a node's id in a record."""
    return 0 < len(text) <= WORD_LIMIT and text.isprintable()


def _word(key: str, given: object) -> str:
    if given is None:
        return ""
    if not isinstance(given, str):
        raise RecordError(f"gives {key} {quoted(given)}, which is not text")
    if len(given) > WORD_LIMIT:
        raise RecordError(f"gives {key} of {len(given)} characters, at most {WORD_LIMIT} are read")
    if not given.isprintable():
        raise RecordError(f"gives {key} {quoted(given)}, which holds unprintable characters")
    return given


def _canonical(given: object) -> str | None:
    return None if given is None else _compact(given)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
