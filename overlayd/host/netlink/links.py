"""Messages that are rare: devices, addresses and settings, through pyroute2's codecs.

Only its message classes are used: it packs and reads, the socket is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from overlayd.core.kernel.items import Address, Link, VxlanKind
from overlayd.core.network.addresses import Mac
from overlayd.host.netlink import wire
from overlayd.host.netlink.entries import family_of
from overlayd.host.netlink.wire import Request

_IFF_UP = 1
_IN6_ADDR_GEN_MODE_NONE = 1
"""linux/if.h, linux/if_link.h"""

_AGEING = 300
"""Seconds after which a learned FDB entry is dropped; the kernel's own default (drivers/net/vxlan)."""


def create_vxlan(link: Link, underlay_index: int) -> Request:
    """Make the request for a new vxlan device, down; refused with EEXIST where the name is taken."""
    kind = link.kind
    assert isinstance(kind, VxlanKind)
    local = "IFLA_VXLAN_LOCAL" if kind.local.version == 4 else "IFLA_VXLAN_LOCAL6"
    data: list[tuple[str, object]] = [
        ("IFLA_VXLAN_ID", kind.vni),
        ("IFLA_VXLAN_LINK", underlay_index),
        (local, str(kind.local)),
        ("IFLA_VXLAN_PORT", kind.port),
        ("IFLA_VXLAN_LEARNING", int(kind.learning)),
        ("IFLA_VXLAN_TTL", 0),
        ("IFLA_VXLAN_AGEING", _AGEING),
        ("IFLA_VXLAN_UDP_CSUM", 1),
    ]
    if kind.gbp:
        data.append(("IFLA_VXLAN_GBP", True))
    info = [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": data})]
    attrs = [
        ("IFLA_IFNAME", link.name),
        ("IFLA_MTU", link.mtu),
        ("IFLA_ADDRESS", str(link.mac)),
        ("IFLA_LINKINFO", {"attrs": info}),
    ]
    return Request(wire.RTM_NEWLINK, wire.NLM_F_CREATE | wire.NLM_F_EXCL, _encode(ifinfmsg(), attrs))


def set_no_generated_addresses(index: int) -> Request:
    """Make the request for no generated fe80:: address.  EAFNOSUPPORT where there is no IPv6."""
    spec = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _IN6_ADDR_GEN_MODE_NONE)]})]}
    return Request(wire.RTM_SETLINK, 0, _encode(_link_message(index), [("IFLA_AF_SPEC", spec)]))


def set_link(index: int, mac: Mac | None = None, mtu: int | None = None, up: bool | None = None) -> Request:
    """Change what is given and leave the rest."""
    message = _link_message(index)
    if up is not None:
        message["change"] = _IFF_UP
        message["flags"] = _IFF_UP if up else 0
    attrs: list[tuple[str, object]] = []
    if mac is not None:
        attrs.append(("IFLA_ADDRESS", str(mac)))
    if mtu is not None:
        attrs.append(("IFLA_MTU", mtu))
    return Request(wire.RTM_SETLINK, 0, _encode(message, attrs))


def delete_link(index: int) -> Request:
    return Request(wire.RTM_DELLINK, 0, _encode(_link_message(index), []))


def ask_for_nothing() -> Request:
    """Make a request that is always refused: with EPERM where devices may not be changed, else since it names
    none."""
    return Request(wire.RTM_SETLINK, 0, _encode(ifinfmsg(), []))


def ask_for_half_a_vxlan() -> Request:
    """Make a request that is always refused: with EOPNOTSUPP where the kernel has no vxlan devices (it has
    tried to load the module by then), else since the VNI is missing (vxlan_validate in drivers/net/vxlan)."""
    info = {"attrs": [("IFLA_INFO_KIND", "vxlan")]}
    body = _encode(ifinfmsg(), [("IFLA_IFNAME", "ovl.probe"), ("IFLA_LINKINFO", info)])
    return Request(wire.RTM_NEWLINK, wire.NLM_F_CREATE | wire.NLM_F_EXCL, body)


def add_address(address: Address, index: int) -> Request:
    """Make the request of `ip address replace`: no error where it is there already."""
    local = str(address.address)
    body = _encode(_address_message(address, index), [("IFA_LOCAL", local), ("IFA_ADDRESS", local)])
    return Request(wire.RTM_NEWADDR, wire.NLM_F_CREATE | wire.NLM_F_REPLACE, body)


def delete_address(address: Address, index: int) -> Request:
    return Request(
        wire.RTM_DELADDR, 0, _encode(_address_message(address, index), [("IFA_LOCAL", str(address.address))])
    )


def parse_vxlan(message: wire.Message, names: dict[int, str]) -> VxlanKind:
    """Parse the vxlan device in a link message, `names` being the interfaces by index.

    An underlay that is gone, or that there never was, is called by its index with a space in it: no interface
    can have such a name, so the device equals no desired one.
    """
    whole = ifinfmsg(wire.HEADER.pack(wire.HEADER.size + len(message.body), message.kind, 0, 0, 0) + message.body)
    whole.decode()
    data = whole.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    index = data.get_attr("IFLA_VXLAN_LINK") or 0
    local = data.get_attr("IFLA_VXLAN_LOCAL") or data.get_attr("IFLA_VXLAN_LOCAL6") or "0.0.0.0"
    return VxlanKind(
        vni=data.get_attr("IFLA_VXLAN_ID") or 0,
        local=ip_address(local),
        underlay=names.get(index, f"index {index}"),
        port=data.get_attr("IFLA_VXLAN_PORT") or 0,
        learning=bool(data.get_attr("IFLA_VXLAN_LEARNING")),
        gbp=data.get_attr("IFLA_VXLAN_GBP") is not None,
        extra=tuple(_extra(data)),
    )


_UNSET: tuple[tuple[str, str], ...] = (
    ("IFLA_VXLAN_GROUP", "remote {}"),
    ("IFLA_VXLAN_GROUP6", "remote {}"),
    ("IFLA_VXLAN_TTL", "ttl {}"),
    ("IFLA_VXLAN_TOS", "tos {}"),
    ("IFLA_VXLAN_PROXY", "proxy"),
    ("IFLA_VXLAN_RSC", "rsc"),
    ("IFLA_VXLAN_L2MISS", "l2miss"),
    ("IFLA_VXLAN_L3MISS", "l3miss"),
    ("IFLA_VXLAN_REMCSUM_TX", "remcsumtx"),
    ("IFLA_VXLAN_REMCSUM_RX", "remcsumrx"),
    ("IFLA_VXLAN_COLLECT_METADATA", "external"),
    ("IFLA_VXLAN_GPE", "gpe"),
)
"""What a device of ours leaves at nothing, and what `ip -d link` calls it."""


def _extra(data: Any) -> Iterator[str]:
    for attr, name in _UNSET:
        if value := data.get_attr(attr):
            yield name.format(value)
    if data.get_attr("IFLA_VXLAN_UDP_CSUM") == 0:
        yield "noudpcsum"


def _link_message(index: int) -> Any:
    message = ifinfmsg()
    message["index"] = index
    return message


def _address_message(address: Address, index: int) -> Any:
    message = ifaddrmsg()
    message["family"] = family_of(address.address)
    message["prefixlen"] = address.prefixlen
    message["index"] = index
    return message


def _encode(message: Any, attrs: list[tuple[str, Any]]) -> bytes:
    message["attrs"] = attrs
    message.encode()
    return bytes(message.data[wire.HEADER.size :])
