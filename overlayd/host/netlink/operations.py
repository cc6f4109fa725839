"""What an operation on one entry is to the kernel, step by step.

Each is a generator: it yields one request at a time, is sent the outcome, and returns the refusal that makes
the operation fail, if any.  So the many entries of many peers take their steps side by side, all first
requests in one batch, then all second ones (most need no second).
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Mapping

from overlayd.core.kernel.driver import Operation, Verb
from overlayd.core.kernel.items import Address, FdbEntry, Neighbour, Route
from overlayd.host.netlink import links, wire
from overlayd.host.netlink.entries import (
    pack_fdb_entry,
    pack_fdb_key,
    pack_neighbour,
    pack_neighbour_key,
    pack_route,
    pack_route_key,
)
from overlayd.host.netlink.wire import Refusal, Request

OperationSteps = Generator[Request, Refusal | None, Refusal | None]

_NEW = wire.NLM_F_CREATE | wire.NLM_F_EXCL
_SET = wire.NLM_F_CREATE | wire.NLM_F_REPLACE
_GONE = frozenset((errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL))
"""Answers to a removal that say that there is nothing left to remove: in turn of FDB entry and neighbour, route,
any on a device that went meanwhile, and address."""


def operation_steps(operation: Operation, index_of: Mapping[str, int]) -> OperationSteps:
    """Return the steps of an operation on an address, FDB entry, neighbour or route; `index_of` has every
    interface."""
    item = operation.item
    assert isinstance(item, Address | FdbEntry | Neighbour | Route)
    index = index_of.get(item.link)
    if index is None:
        return _settled(
            None if operation.verb is Verb.REMOVE else Refusal(errno.ENODEV, f"no interface {item.link}")
        )
    match item:
        case Address():
            return _address(operation.verb, item, index)
        case FdbEntry():
            return _fdb_entry(operation, item, index)
        case Neighbour():
            return _neighbour(operation.verb, item, index)
        case Route():
            return _route(operation, item, index, index_of)


def _settled(outcome: Refusal | None) -> OperationSteps:
    yield from ()
    return outcome


def _remove(request: Request) -> OperationSteps:
    refused = yield request
    return None if refused and refused.errno in _GONE else refused


def _address(verb: Verb, address: Address, index: int) -> OperationSteps:
    if verb is Verb.REMOVE:
        return (yield from _remove(links.delete_address(address, index)))
    return (yield links.add_address(address, index))


def _neighbour(verb: Verb, neighbour: Neighbour, index: int) -> OperationSteps:
    if verb is Verb.REMOVE:
        return (yield from _remove(Request(wire.RTM_DELNEIGH, 0, pack_neighbour_key(neighbour.address, index))))
    return (yield Request(wire.RTM_NEWNEIGH, _SET, pack_neighbour(neighbour, index)))


def _fdb_entry(operation: Operation, entry: FdbEntry, index: int) -> OperationSteps:
    """Change an FDB entry: the kernel replaces a MAC's one plain destination in place.  Where several stand,
    or a nexthop group, it would replace the first or, with success, nothing: such an entry is removed whole."""
    remove = Request(wire.RTM_DELNEIGH, 0, pack_fdb_key(entry.mac, index))
    body = pack_fdb_entry(entry, index)
    if operation.verb is Verb.REMOVE:
        return (yield from _remove(remove))
    if isinstance(operation.was, FdbEntry) and not operation.was.destination.is_unspecified:
        return (yield Request(wire.RTM_NEWNEIGH, _SET, body))
    refused = yield (add := Request(wire.RTM_NEWNEIGH, _NEW, body))
    if refused and refused.errno == errno.EEXIST:
        refused = (yield from _remove(remove)) or (yield add)
    return refused


def _route(operation: Operation, route: Route, index: int, index_of: Mapping[str, int]) -> OperationSteps:
    """Add a route. Without "exclusive", "replace" or "append" the kernel puts a route before all others to its
    destination, and refuses it (EEXIST) only where the very same stands somewhere already, maybe behind a
    foreign one."""
    if route.destination.version != 4:
        return Refusal(errno.EOPNOTSUPP, "IPv6 routes are not programmed yet")
    if operation.verb is Verb.REMOVE:
        return (yield from _remove(_route_removal(route, index)))
    add = Request(wire.RTM_NEWROUTE, wire.NLM_F_CREATE, pack_route(route, index))
    was = operation.was if isinstance(operation.was, Route) else None
    if was and was.link == route.link and was.gateway in (route.gateway, None):
        # a removal could not tell the old one from the new: it goes first
        return (yield from _remove(_route_removal(was, index))) or (yield add)
    refused = yield add
    if refused and refused.errno == errno.EEXIST:
        refused = (yield from _remove(_route_removal(route, index))) or (yield add)
    if was and not refused and was.link in index_of:
        refused = yield from _remove(_route_removal(was, index_of[was.link]))
    return refused


def _route_removal(route: Route, index: int) -> Request:
    return Request(wire.RTM_DELROUTE, 0, pack_route_key(route, index))
