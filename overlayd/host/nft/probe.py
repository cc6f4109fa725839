"""Whether nft could do here what may be asked of it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from overlayd.core.firewall.nftables import NftTable, Sender
from overlayd.core.firewall.policy import masquerade, source_check
from overlayd.core.kernel.driver import Operation, Verb
from overlayd.core.kernel.items import Item
from overlayd.host.nft.program import run_nft
from overlayd.host.nft.script import Part, assemble, commands

_ADDRESS = IPv4Address("198.51.100.1")
_NETWORK, _SUBNET = IPv4Network("192.0.2.0/24"), IPv4Network("192.0.2.0/26")
"""RFC 5737: addresses for examples."""
_TABLE = NftTable(_SUBNET.prefixlen)
_EXAMPLE: tuple[Item, ...] = (
    Sender(_ADDRESS, _SUBNET),
    Sender(_ADDRESS, IPv4Network(_ADDRESS)),
    Sender(_ADDRESS, _NETWORK),
    masquerade(_NETWORK, _SUBNET),
    source_check(8472, 1, _SUBNET.prefixlen, _SUBNET),
)


async def find_obstacle(netns: str | None = None) -> str:
    """Tell why nft can't be used, "" where it can.  Nothing is changed by asking: nft and the kernel check an
    example, and throw it away."""
    operations = [Operation(Verb.CHANGE, _TABLE), *(Operation(Verb.ADD, item) for item in _EXAMPLE)]
    script, _ = assemble([Part((), commands(operation, _TABLE.prefixlen)) for operation in operations])
    try:
        ran = await run_nft(netns, "--check", "--file", "-", script=script)
    except OSError as error:
        return error.strerror or str(error)
    words = ran.trouble or next((words for _, words in ran.refusals), "")
    return f"it does not work here: {words}" if words else ""
