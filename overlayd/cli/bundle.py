"""`overlayd bundle`: collect the state of this node and its kernel in one archive for a bug report.

Each source is read by itself, with a time limit of its own. One that fails leaves its reason in the archive, since
that is a finding too. Reading changes nothing, and nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
import tarfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from overlayd import __version__
from overlayd.cli import CommandError
from overlayd.cli.options import (
    add_run_dir_option,
    add_state_dir_option,
    add_store_options,
    add_subnet_file_option,
)
from overlayd.core.text.redaction import redact

PATIENCE = 15.0
"""Seconds that one source may take."""
SIZE_LIMIT = 8 * 1024 * 1024
"""Bytes of one source; of a longer one the end is kept, where a log has its news."""

COMMANDS: Mapping[str, Sequence[str]] = {
    "kernel/links": ("ip", "-details", "-statistics", "link", "show"),
    "kernel/addresses": ("ip", "address", "show"),
    "kernel/rules": ("ip", "rule", "show"),
    "kernel/routes": ("ip", "route", "show", "table", "all"),
    "kernel/neighbours": ("ip", "neighbour", "show"),
    "kernel/fdb": ("bridge", "fdb", "show"),
    "kernel/sockets": ("ss", "--udp", "--numeric", "--listening", "--processes"),
    "kernel/nftables": ("nft", "list", "ruleset"),
    "kernel/iptables": ("iptables-save", "-c"),
    "kernel/iptables-legacy": ("iptables-legacy-save", "-c"),
    "log/journal": ("journalctl", "--unit", "overlayd", "--no-pager", "--lines", "20000", "--output", "short-iso"),
}
SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/conf/all/accept_local",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/bridge/bridge-nf-call-iptables",
    "net/core/rmem_max",
    "net/core/wmem_max",
)
FILES = {"host/os-release": Path("/etc/os-release"), "host/environment-file": Path("/etc/overlayd/overlayd.env")}


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the archive: its name, and who writes it.  `read` may raise OSError or CommandError."""

    name: str
    read: Callable[[], Awaitable[str]]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="FILE",
        help="file to write the archive to (default: overlayd-bundle-<host>-<time>.tar.gz in this directory)",
    )
    add_store_options(parser)
    add_run_dir_option(parser)
    add_state_dir_option(parser)
    add_subnet_file_option(parser)


def run(args: argparse.Namespace) -> int:
    import trio

    stem = f"overlayd-bundle-{platform.node()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    output: Path = args.output or Path(f"{stem}.tar.gz")
    texts = trio.run(collect, sources(args))
    try:
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(archive(stem, texts))
    except FileExistsError:
        raise CommandError(f"{output} exists already: give another file with --output") from None
    except OSError as error:
        raise CommandError(f"{output} can't be written: {error.strerror}") from error
    print(
        f"{output}: {len(texts)} files.  Secrets are redacted; addresses and names of nodes are not."
        "  Look through it before you share it",
        file=sys.stderr,
    )
    return 0


def sources(args: argparse.Namespace) -> tuple[Source, ...]:
    """List all sources, in the order of the archive."""
    state_file = args.state_dir / "node.json"
    return (
        Source("about", _constant(about())),
        Source("status.json", _status(args)),
        Source("store.json", _store(args)),
        *(Source(name, _file(path)) for name, path in FILES.items()),
        Source("node/node.json", _file(state_file)),
        Source("node/subnet.env", _file(args.subnet_file)),
        Source("node/footprint.json", _file(args.run_dir / "footprint.json")),
        *(Source(name, _command(argv)) for name, argv in COMMANDS.items()),
        *(Source(f"kernel/sysctl/{key.replace('/', '.')}", _file(Path("/proc/sys", key))) for key in SYSCTLS),
    )


async def collect(sources: Sequence[Source]) -> dict[str, str]:
    """Read all sources at once. Each text is redacted and no longer than SIZE_LIMIT."""
    import trio

    texts = dict.fromkeys((source.name for source in sources), "")

    async def ask(source: Source) -> None:
        try:
            with trio.fail_after(PATIENCE):
                texts[source.name] = await source.read()
        except trio.TooSlowError:
            texts[source.name] = f"no answer within {PATIENCE:.0f} s\n"
        except (OSError, CommandError) as error:
            texts[source.name] = f"can't be read: {error}\n"

    async with trio.open_nursery() as nursery:
        for source in sources:
            nursery.start_soon(ask, source)
    return {name: redact(text[-SIZE_LIMIT:]) for name, text in texts.items()}


def archive(stem: str, texts: Mapping[str, str]) -> bytes:
    """Pack the texts into a gzipped tar with one directory, readable by the user alone."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in texts.items():
            content = text.encode("utf-8", "surrogateescape")
            entry = tarfile.TarInfo(f"{stem}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def about() -> str:
    options = "".join(f"{k}={v}\n" for k, v in sorted(os.environ.items()) if k.startswith("OVERLAYD_"))
    return (
        f"overlayd {__version__}, Python {platform.python_version()} {platform.machine()}\n"
        f"{platform.system()} {platform.release()} {platform.version()}\n"
        f"taken {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC by uid {os.getuid()}\n"
        f"\nenvironment of this command:\n{options}"
    )


def _constant(text: str) -> Callable[[], Awaitable[str]]:
    async def read() -> str:
        return text

    return read


def _file(path: Path) -> Callable[[], Awaitable[str]]:
    async def read() -> str:
        import trio

        return await trio.Path(path).read_text(errors="surrogateescape")

    return read


def _command(argv: Sequence[str]) -> Callable[[], Awaitable[str]]:
    async def read() -> str:
        import subprocess

        import trio

        try:
            done = await trio.run_process(argv, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
        except FileNotFoundError:
            raise CommandError(f"there is no {argv[0]} on this host") from None
        ended = f"\n(exit status {done.returncode})\n" if done.returncode else ""
        return f"# {' '.join(argv)}\n{done.stdout.decode(errors='surrogateescape')}{ended}"

    return read


def _status(args: argparse.Namespace) -> Callable[[], Awaitable[str]]:
    async def read() -> str:
        import msgspec

        from overlayd.api.status_socket import StatusUnavailableError, query_status

        try:
            answer = await query_status(args.run_dir)
        except StatusUnavailableError as error:
            raise CommandError(str(error)) from error
        return msgspec.json.format(msgspec.json.encode(answer)).decode() + "\n"

    return read


def _store(args: argparse.Namespace) -> Callable[[], Awaitable[str]]:
    """Read every record as it is stored, valid or not."""

    async def read() -> str:
        import json

        from overlayd.cli.options import open_store
        from overlayd.core.leases.store import StoreError

        try:
            async with open_store(args) as store:
                snapshot = await store.snapshot()
        except StoreError as error:
            raise CommandError(str(error)) from error
        records = [
            {
                "name": record.name,
                "value": record.value.decode("utf-8", "backslashreplace"),
                "create_revision": record.create_revision,
                "mod_revision": record.mod_revision,
                "lease_id": f"{record.lease_id:x}",
            }
            for record in snapshot.records
        ]
        return json.dumps({"revision": snapshot.revision, "records": records}, indent=1) + "\n"

    return read
