"""`overlayd leases`: the leases of the cluster, as an operator sees and keeps them.

Whatever it writes is a transaction on what it has seen, like a daemon's; only `release --force` takes from a
node what that node may still believe to be its own.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from overlayd.cli import CommandError
from overlayd.cli.options import add_store_options, open_store, parse_ttl
from overlayd.core.leases.keeper import TTL_DEFAULT

if TYPE_CHECKING:
    from overlayd.core.leases.store import Store, Transaction


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="action", metavar="VERB", required=True)
    show = verbs.add_parser("list", help="every lease, whose it is, and what is wrong with it")
    show.add_argument("--json", action="store_true", help="print the facts as JSON")
    reserve = verbs.add_parser("reserve", help="give a subnet to a node for good: it does not expire")
    reserve.add_argument("subnet", metavar="SUBNET", type=_subnet)
    reserve.add_argument("--node", required=True, metavar="ID", help="the node's id (overlayd leases list)")
    release = verbs.add_parser("release", help="take a lease or reservation out of the store")
    release.add_argument("subnet", metavar="SUBNET", type=_subnet)
    release.add_argument("--force", action="store_true", help="also if its node may still be using it")
    freeze = verbs.add_parser("freeze", help="let no subnet be claimed for a while: before etcd is restored")
    freeze.add_argument(
        "--seconds", type=_seconds, default=TTL_DEFAULT, help=f"how long (default: {TTL_DEFAULT}, one lease)"
    )
    thaw = verbs.add_parser("thaw", help="let subnets be claimed again")
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
            refused or "something changed in the store meanwhile: look again (overlayd leases list)"
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
