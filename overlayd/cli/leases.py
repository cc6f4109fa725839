"""`overlayd leases`: list, reserve and release the subnets of the cluster.

Every write is a transaction guarded by what was read. Only `release --force` takes a lease from a node that may
still believe in it.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from overlayd.cli import CommandError
from overlayd.cli.options import add_store_options, open_store, parse_ttl
from overlayd.core.leases.keeper.state import TTL_DEFAULT

if TYPE_CHECKING:
    from overlayd.core.leases.store import Store, Transaction


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="action", metavar="VERB", required=True)
    show = verbs.add_parser("list", help="list every lease, its owner and its faults")
    show.add_argument("--json", action="store_true", help="print the list as JSON")
    reserve = verbs.add_parser("reserve", help="reserve a subnet for a node, without expiry")
    reserve.add_argument("subnet", metavar="SUBNET", type=_subnet, help="a free subnet, or the lease of the node")
    reserve.add_argument("--node", required=True, metavar="ID", help="id of the node, from `overlayd leases list`")
    release = verbs.add_parser("release", help="delete a lease or a reservation")
    release.add_argument("subnet", metavar="SUBNET", type=_subnet, help="subnet of the lease")
    release.add_argument("--force", action="store_true", help="delete it even if its node may still use it")
    freeze = verbs.add_parser("freeze", help="stop all claims for a time, before etcd is restored")
    freeze.add_argument(
        "--seconds",
        type=_seconds,
        default=TTL_DEFAULT,
        help=f"duration in seconds (default: {TTL_DEFAULT})",
    )
    thaw = verbs.add_parser("thaw", help="allow claims again")
    for verb in (show, reserve, release, freeze, thaw):
        add_store_options(verb)


def run(args: argparse.Namespace) -> int:
    import trio

    from overlayd.core.leases.store import StoreError

    try:
        trio.run(_run, args)
    except StoreError as error:
        raise CommandError(str(error), 2) from error
    return 0


async def _run(args: argparse.Namespace) -> None:
    actions = {"list": _list, "reserve": _reserve, "release": _release, "freeze": _freeze, "thaw": _thaw}
    async with open_store(args) as store:
        await actions[args.action](args, store)


async def _list(args: argparse.Namespace, store: Store) -> None:
    import msgspec

    from overlayd.core.leases.admin import compose_inventory, render_inventory

    inventory = compose_inventory(await store.snapshot())
    print(
        msgspec.json.format(msgspec.json.encode(inventory)).decode() if args.json else render_inventory(inventory)
    )


async def _reserve(args: argparse.Namespace, store: Store) -> None:
    from overlayd.core.leases.admin import ReservationError, make_reservation

    snapshot = await store.snapshot()
    try:
        transaction = make_reservation(snapshot, args.subnet, args.node)
    except ReservationError as error:
        raise CommandError(str(error)) from error
    await _commit(store, transaction, f"{args.subnet} is reserved for {args.node}")


async def _release(args: argparse.Namespace, store: Store) -> None:
    from overlayd.core.leases.admin import ReservationError, make_release

    snapshot = await store.snapshot()
    try:
        transaction = make_release(snapshot, args.subnet, force=args.force)
    except ReservationError as error:
        raise CommandError(str(error)) from error
    await _commit(store, transaction, f"{args.subnet} is free")


async def _freeze(args: argparse.Namespace, store: Store) -> None:
    from overlayd.core.leases.store import FROZEN, Field, Guard, Put, Transaction

    grant = await store.grant(args.seconds)
    guards = (Guard(FROZEN, Field.CREATE_REVISION, 0),)
    done = f"claims are frozen for {args.seconds} seconds"
    await _commit(
        store, Transaction(guards, (Put(FROZEN, b"", grant.lease_id),)), done, "claims are frozen already"
    )


async def _thaw(args: argparse.Namespace, store: Store) -> None:
    from overlayd.core.leases.store import FROZEN, Delete, Transaction

    await _commit(store, Transaction((), (Delete(FROZEN),)), "subnets can be claimed")


async def _commit(store: Store, transaction: Transaction, done: str, refused: str = "") -> None:
    from overlayd.core.leases.store import Refused

    if isinstance(await store.commit(transaction), Refused):
        raise CommandError(
            refused or "the store has changed since it was read: look again (`overlayd leases list`)"
        )
    print(done, file=sys.stderr)


def _subnet(text: str) -> object:
    from overlayd.core.network.addresses import Subnet

    try:
        return Subnet.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a subnet like 10.244.3.0/24: {error}") from error


def _seconds(text: str) -> int:
    try:
        return parse_ttl(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
