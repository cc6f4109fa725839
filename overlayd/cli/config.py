"""`overlayd config`: show, check or set the network config of the cluster.

`check` needs no store. `set` refuses what `check` refuses, and never overwrites a change that it has not seen.
Unless forced it writes no config that takes subnets away from nodes.

Exit status 0 done, 1 the config is invalid (or there is none), 2 the store can't be asked.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from overlayd.cli import CommandError
from overlayd.cli.options import add_store_options, open_store
from overlayd.core.leases.lease_record import LeaseRecord
from overlayd.core.leases.records import RecordBook, absorb_snapshot
from overlayd.core.leases.store import (
    CONFIG,
    Committed,
    Field,
    Guard,
    Put,
    Refused,
    Snapshot,
    StoreError,
    StoreRefused,
    Transaction,
)
from overlayd.core.leases.subnets import find_config_mismatch, subnet_at
from overlayd.core.network.addresses import Family
from overlayd.core.network.backend import Backend, overhead
from overlayd.core.network.backend_choice import check_backend, unknown_options
from overlayd.core.network.config import ConfigError, NetworkConfig, parse_config
from overlayd.core.text.strict_json import SIZE_LIMIT

INVALID, UNREACHABLE = 1, 2
NAMED = 5
"""Leases that `set` names one by one; it counts the rest."""
EXAMPLE = """echo '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}' | overlayd config set -"""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print the stored config and its meaning")
    check = actions.add_parser("check", help="name the faults of a config, or print its meaning")
    set_ = actions.add_parser("set", help="check a config, then store it")
    for action in (check, set_):
        action.add_argument("file", metavar="FILE", help="file with the config as JSON; - reads standard input")
    set_.add_argument("--force", action="store_true", help="store the config even if nodes lose their subnets")
    for action in (show, check, set_):
        action.add_argument("--json", action="store_true", help="print the result as JSON")
    for action in (show, set_):
        add_store_options(action)


def run(args: argparse.Namespace) -> int:
    import trio

    actions = {"show": _show, "check": _check, "set": _set}
    try:
        trio.run(actions[args.action], args)
    except ConfigError as error:
        if args.json:
            print(json.dumps({"faults": [dataclasses.asdict(fault) for fault in error.faults]}, indent=2))
        where = "the stored value" if args.action == "show" else _where(args.file)
        faults = "".join(f"\n  {line}" for line in str(error).splitlines())
        raise CommandError(f"{where} is not a valid network config:{faults}", INVALID) from error
    return 0


@dataclasses.dataclass(frozen=True)
class Meaning:
    """A valid config and its meaning."""

    config: NetworkConfig
    backend: Backend

    @classmethod
    def of(cls, raw: bytes) -> Meaning:
        """Parse and check a config.  Raises ConfigError."""
        from overlayd.plugins import load_backends

        config = parse_config(raw)
        return cls(config, check_backend(config, load_backends()))

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.config.warnings, *unknown_options(self.config, self.backend))

    @property
    def options(self) -> dict[str, object]:
        """The backend's options in effect, defaults among them."""
        if not dataclasses.is_dataclass(self.backend):
            return self.config.options
        documented = {key.lower(): key for key in self.backend.options}
        effective = dataclasses.asdict(self.backend)
        return {documented.get(name.replace("_", ""), name): value for name, value in effective.items()}

    @property
    def overhead(self) -> dict[str, int]:
        """Bytes that the backend takes off the underlay's MTU, by the underlay's family."""
        return {family.name.lower(): overhead(self.backend, family) for family in Family}

    @property
    def facts(self) -> dict[str, Any]:
        ranges = [
            {
                "network": str(span.network),
                "subnet_len": span.subnet_len,
                "first": str(span.first),
                "last": str(span.last),
                "subnets": span.capacity,
            }
            for span in self.config.ranges
        ]
        return {
            "ranges": ranges,
            "subnets": self.config.capacity,
            "backend": {"type": self.config.backend_type, "options": self.options, "overhead": self.overhead},
            "warnings": list(self.warnings),
        }

    @property
    def text(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        config = self.config
        for span in config.ranges:
            yield f"network   {span.network}, a /{span.subnet_len} for each node"
        yield f"subnets   {config.capacity:,}: {subnet_at(config, 0)} to {subnet_at(config, config.capacity - 1)}"
        options = ", ".join(f"{key} {_plain(value)}" for key, value in self.options.items())
        yield f"backend   {config.backend_type}" + (f" ({options})" if options else "")
        ipv4, ipv6 = self.overhead["ipv4"], self.overhead["ipv6"]
        if ipv4 or ipv6:
            yield (
                f"overhead  {ipv4} bytes per packet over an IPv4 underlay (MTU 1500 leaves {1500 - ipv4}),"
                f" {ipv6} over IPv6"
            )
        else:
            yield "overhead  none"
        for warning in self.warnings:
            yield f"warning   {warning}"


async def _check(args: argparse.Namespace) -> None:
    meaning = Meaning.of(_read(args.file))
    _print(meaning.facts, meaning.text, as_json=args.json)


async def _show(args: argparse.Namespace) -> None:
    record = (await _snapshot(args)).config
    if record is None:
        where = f"{args.etcd_prefix}/{CONFIG}"
        raise CommandError(f"there is no network config at {where}; set one, for example:\n  {EXAMPLE}", INVALID)
    text = _harmless(record.value)
    if not args.json:
        print(f"{text}\n")
    meaning = Meaning.of(record.value)
    facts = {"config": text, "revision": record.mod_revision, **meaning.facts}
    _print(facts, meaning.text, as_json=args.json)


async def _set(args: argparse.Namespace) -> None:
    value = _read(args.file).strip()
    meaning = Meaning.of(value)
    snapshot = await _snapshot(args)
    evicted = find_evicted(snapshot, meaning.config)
    if evicted and not args.force:
        raise CommandError(
            f"{describe_evicted(evicted)}; nothing was written.  Add --force to write it all the same", INVALID
        )
    before = snapshot.config
    if before is not None and before.value == value:
        revision = before.mod_revision
    else:
        revision = await _write(args, value, before.mod_revision if before is not None else 0)
    if evicted:
        print(f"warning: {describe_evicted(evicted)}", file=sys.stderr)
    facts = {"revision": revision, "evicted": [str(lease.subnet) for lease in evicted], **meaning.facts}
    _print(facts, f"stored at revision {revision}\n\n{meaning.text}", as_json=args.json)


def find_evicted(snapshot: Snapshot, config: NetworkConfig) -> tuple[LeaseRecord, ...]:
    """Find the leases that no node could hold under this config."""
    leases = absorb_snapshot(RecordBook(), snapshot, asked_at=0).leases
    return tuple(lease for lease in leases if find_config_mismatch(config, lease.subnet) is not None)


def describe_evicted(evicted: Sequence[LeaseRecord]) -> str:
    named = [f"{lease.subnet} of {lease.attributes.node_name or lease.attributes.identity}" for lease in evicted]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    nodes = "1 node loses its subnet" if len(named) == 1 else f"{len(named)} nodes lose their subnets"
    return f"{nodes} by this config: {', '.join(named[:NAMED])}{more}"


async def _snapshot(args: argparse.Namespace) -> Snapshot:
    try:
        async with open_store(args) as store:
            return await store.snapshot()
    except StoreError as error:
        raise CommandError(str(error), UNREACHABLE) from error


async def _write(args: argparse.Namespace, value: bytes, mod_revision: int) -> int:
    """Replace the config last changed at `mod_revision` (0: there was none); return the new revision."""
    guard = Guard(CONFIG, Field.MOD_REVISION, mod_revision)
    try:
        async with open_store(args) as store:
            outcome = await store.commit(Transaction((guard,), (Put(CONFIG, value, lease_id=0),)))
    except StoreRefused as error:
        raise CommandError(f"{error}; nothing was written", UNREACHABLE) from error
    except StoreError as error:
        raise CommandError(
            f"{error}; the config may have been written: `overlayd config show` tells", UNREACHABLE
        ) from error
    match outcome:
        case Committed(revision=revision):
            return revision
        case Refused():
            raise CommandError(
                "the config has changed since it was read; nothing was written."
                "  Look at the new one (`overlayd config show`), then try again",
                INVALID,
            )


def _read(file: str) -> bytes:
    """Read a config; one byte more than the limit is enough to refuse it."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(SIZE_LIMIT + 1)
        with open(file, "rb") as source:
            return source.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise CommandError(f"can't read {_where(file)}: {error.strerror}", INVALID) from error


def _where(file: str) -> str:
    return "standard input" if file == "-" else file


def _harmless(value: bytes) -> str:
    """Escape the characters of stored text that a terminal would obey."""
    text = value.decode("utf-8", "backslashreplace").rstrip()
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _plain(value: object) -> str:
    if value is None:
        return "automatic"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _print(facts: dict[str, Any], text: str, *, as_json: bool) -> None:
    print(json.dumps(facts, indent=2) if as_json else text)
