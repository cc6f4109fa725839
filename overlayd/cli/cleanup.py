"""`overlayd cleanup`: remove everything that overlayd put into this host's kernel, and nothing else.

Stopping the daemon leaves forwarding as it is; this command is how a node leaves for good. With `--release` its
lease goes too, so the peers remove the node at once, not at the end of the TTL.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from overlayd.cli import CommandError
from overlayd.cli.options import (
    add_iface_option,
    add_run_dir_option,
    add_state_dir_option,
    add_store_options,
    add_subnet_file_option,
    open_store,
    pick_iface,
)

if TYPE_CHECKING:
    from overlayd.core.host.underlay import InterfaceSelector
    from overlayd.core.status.problem import Problem

ROUNDS = 8
"""Rounds in which to look for items that another one of ours had hidden."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_store_options(parser)
    add_iface_option(parser)
    add_subnet_file_option(parser)
    add_state_dir_option(parser)
    add_run_dir_option(parser)
    parser.add_argument("--release", action="store_true", help="also release this node's lease")


def run(args: argparse.Namespace) -> int:
    import trio

    from overlayd.core.leases.store import StoreError
    from overlayd.host.cleanup_state import CleanupStateFile
    from overlayd.host.identity import IdentityError, hold_namespace
    from overlayd.host.persistent_driver import find_state_files

    try:
        with hold_namespace():
            cleanup_state = CleanupStateFile(args.run_dir)
            if complaint := trio.run(_clean_kernel, pick_iface(args), cleanup_state.known.links):
                raise CommandError(complaint)
            _remove_subnet_file(args.subnet_file, cleanup_state.known.subnet_file)
            if cleanup_state.known.conflist:
                _remove_file(Path(cleanup_state.known.conflist))
            for left in (cleanup_state.path, args.run_dir / "status.sock", *find_state_files(args.run_dir)):
                _remove_file(left)
            if args.release:
                trio.run(_release, args)
    except IdentityError as error:
        raise CommandError(str(error)) from error
    except StoreError as error:
        raise CommandError(f"the kernel is clean, but the lease was not released: {error}", 2) from error
    return 0


async def _clean_kernel(pick: InterfaceSelector, links: Iterable[str]) -> str:
    """Remove all items of ours; return the reason why some are left, or ""."""
    from overlayd.core.kernel.driver import Scope
    from overlayd.core.kernel.items import KernelState
    from overlayd.core.kernel.plan import diff
    from overlayd.host.drivers import open_drivers
    from overlayd.host.netlink.connection import open_netlink
    from overlayd.host.underlay import observe_underlay_link
    from overlayd.plugins import load_drivers

    async with open_drivers(load_drivers()) as host, open_netlink(devices=host.driver.devices) as netlink:
        underlay = await observe_underlay_link(netlink, pick)
        scope = Scope(frozenset({*links, *((underlay,) if underlay is not None else ())}))
        # An item hidden by another of ours (a second route to one destination) shows once that one is gone.
        for _ in range(ROUNDS):
            try:
                plan = diff(KernelState(), await host.driver.observe(scope), sweep=True)
            except PermissionError:
                return "not permitted to read the kernel's state: run this as root, or with CAP_NET_ADMIN"
            if not plan:
                return _unseen((await host.look_at_firewalls()).problems)
            failed = []
            for stage in plan.stages:
                for operation, failure in zip(stage, await host.driver.apply(stage), strict=True):
                    if failure is None:
                        print(f"removed {operation.item}")
                    else:
                        failed.append(f"{operation.item}: {failure.reason}")
            if failed:
                return "the kernel refused to remove " + "; ".join(failed)
        return "items come back after their removal: stop any other overlayd on this host, then run this again"


def _unseen(problems: Iterable[Problem]) -> str:
    return "; ".join(f"{problem}: rules of overlayd may be left there" for problem in problems)


def _remove_subnet_file(path: Path, written: str) -> None:
    """Remove the file only if it is as we wrote it: flannel may have its own at the same path."""
    from overlayd.host.files import find_text

    try:
        found = find_text(path)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} can't be read: {error}") from error
    if found is not None and found == written:
        _remove_file(path)
    elif found is not None:
        print(f"left {path}: its content is not what overlayd wrote")


def _remove_file(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandError(f"{path} can't be removed: {error.strerror}") from error
    print(f"removed {path}")


async def _release(args: argparse.Namespace) -> None:
    from overlayd.core.leases.keeper.transactions import release
    from overlayd.core.leases.records import RecordBook, absorb_snapshot
    from overlayd.core.leases.store import Refused
    from overlayd.host.identity import load_identity

    if (identity := load_identity(args.state_dir)) is None:
        raise CommandError(f"nothing to release: there is no identity of this node in {args.state_dir}")
    async with open_store(args) as store:
        book = absorb_snapshot(RecordBook(), await store.snapshot(), asked_at=0)
        own = [lease for lease in book.leases if lease.attributes.node_id == identity.node_id]
        for lease in own:
            if lease.is_reservation:
                print(f"left the reservation of {lease.subnet}: remove it by `overlayd leases release`")
                continue
            if isinstance(await store.commit(release(lease)), Refused):
                raise CommandError(f"lease {lease.subnet} has changed since it was read: run this again")
            print(f"released {lease.subnet}")
        if not own:
            print("there is no lease of this node in the store")
