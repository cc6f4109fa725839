"""Options that several verbs share.

Every option can also be set in the environment as OVERLAYD_<NAME>; the command line wins. An error names the
option or the variable that has the wrong value.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overlayd.cli import CommandError
from overlayd.core.leases.keeper.state import TTL_MIN
from overlayd.core.leases.store import Store
from overlayd.core.network.addresses import is_host_address

if TYPE_CHECKING:
    from overlayd.core.host.underlay import InterfaceSelector, Matching, Reaching

DEFAULT_ENDPOINTS = "http://127.0.0.1:2379"
DEFAULT_PREFIX = "/coreos.com/network"
DEFAULT_RUN_DIR = "/run/overlayd"
DEFAULT_STATE_DIR = "/var/lib/overlayd"
DEFAULT_SUBNET_FILE = "/run/flannel/subnet.env"
"""The path that flannel's CNI plugin reads."""
DEFAULT_CNI_BIN_DIR = "/opt/cni/bin"
"""The directory to which the CNI plugins' releases, kubeadm and the runtimes' packages install them."""


def add_option(
    parser: argparse.ArgumentParser,
    flag: str,
    *,
    parse: Callable[[str], Any],
    default: str | None,
    absent: str | None = None,
    help: str,  # noqa: A002 - argparse's own word
    metavar: str | None = None,
    bare: str | None = None,
) -> None:
    """Add `flag`, whose default is $OVERLAYD_<FLAG>, then `default`.

    `parse` raises ValueError with a sentence that names the fault and a value that would be right. `absent` tells
    the effect of giving neither, where `default` is None. The flag without a value means `bare`, if that is given.
    """
    variable = "OVERLAYD_" + flag.lstrip("-").replace("-", "_").upper()

    def converted(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    effective: Any = default
    if variable in os.environ:
        try:
            effective = parse(os.environ[variable])
        except ValueError as error:
            parser.error(f"environment variable {variable}: {error}")
    shown = f" (default: {default or absent})" if default or absent else ""
    arity: dict[str, Any] = {"nargs": "?", "const": bare} if bare is not None else {}
    parser.add_argument(
        flag, type=converted, default=effective, metavar=metavar, help=f"{help}{shown} [${variable}]", **arity
    )


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name etcd and the credentials for it."""
    add_option(
        parser,
        "--etcd-endpoints",
        parse=parse_endpoints,
        default=DEFAULT_ENDPOINTS,
        help="endpoints of the etcd members, separated by commas",
        metavar="URL,…",
    )
    add_option(
        parser,
        "--etcd-prefix",
        parse=parse_prefix,
        default=DEFAULT_PREFIX,
        help="prefix of the cluster's keys in etcd",
        metavar="PREFIX",
    )
    for flag, purpose, absent in (
        ("--etcd-cafile", "CA bundle that verifies etcd's certificate", "the system's"),
        ("--etcd-certfile", "client certificate for etcd", None),
        ("--etcd-keyfile", "private key of the client certificate", None),
    ):
        text = f"{purpose}, in PEM format; needs https"
        add_option(parser, flag, parse=parse_path, default=None, absent=absent, help=text, metavar="FILE")
    add_option(
        parser,
        "--etcd-username",
        parse=parse_username,
        default=None,
        help="user name for etcd",
        metavar="NAME",
    )
    add_option(
        parser,
        "--etcd-password-file",
        parse=parse_path,
        default=None,
        help="file with the password for etcd and nothing else",
        metavar="FILE",
    )


def add_iface_option(parser: argparse.ArgumentParser) -> None:
    add_option(
        parser,
        "--iface",
        parse=parse_iface,
        default=None,
        absent="the interface of the default route",
        help="underlay interface, by its name or by an IPv4 address on it",
        metavar="NAME|IP",
    )
    add_option(
        parser,
        "--iface-regex",
        parse=parse_iface_regex,
        default=None,
        help="underlay interface: the first whose IPv4 address, else whose name, matches; replaces --iface",
        metavar="REGEX",
    )
    add_option(
        parser,
        "--iface-can-reach",
        parse=parse_target,
        default=None,
        help="underlay interface: the one through which this host reaches the address; replaces --iface",
        metavar="IP",
    )


def pick_iface(args: argparse.Namespace) -> InterfaceSelector:
    """Return the choice that the options of `add_iface_option` make.  Raises CommandError if they make several."""
    picks = {
        "--iface": args.iface,
        "--iface-regex": args.iface_regex,
        "--iface-can-reach": args.iface_can_reach,
    }
    given = [flag for flag, pick in picks.items() if pick is not None]
    if len(given) > 1:
        raise CommandError(f"{' and '.join(given)} both choose the underlay interface: give one of them", 2)
    return picks[given[0]] if given else None


def add_run_dir_option(parser: argparse.ArgumentParser) -> None:
    add_option(
        parser,
        "--run-dir",
        parse=parse_path,
        default=DEFAULT_RUN_DIR,
        help="directory of the status socket",
        metavar="DIR",
    )


def add_state_dir_option(parser: argparse.ArgumentParser) -> None:
    add_option(
        parser,
        "--state-dir",
        parse=parse_path,
        default=DEFAULT_STATE_DIR,
        help="directory of the node's identity, which must survive a reboot",
        metavar="DIR",
    )


def add_subnet_file_option(parser: argparse.ArgumentParser) -> None:
    add_option(
        parser,
        "--subnet-file",
        parse=parse_path,
        default=DEFAULT_SUBNET_FILE,
        help="file for the CNI plugin with the node's subnet and MTU",
        metavar="FILE",
    )


@asynccontextmanager
async def open_store(args: argparse.Namespace) -> AsyncGenerator[Store]:
    """Open the store that the options name.

    This reads the files with credentials and sends nothing yet.  Raises CommandError where a file is unusable.
    """
    from overlayd.store.etcd import Access, AccessError, TlsFiles, make_login, open_etcd

    async with AsyncExitStack() as stack:
        try:
            tls = TlsFiles(args.etcd_cafile, args.etcd_certfile, args.etcd_keyfile)
            access = Access(tls, make_login(args.etcd_username, args.etcd_password_file))
            opening = open_etcd(args.etcd_endpoints, args.etcd_prefix, access=access)
            store = await stack.enter_async_context(opening)
        except AccessError as error:
            raise CommandError(str(error), 2) from error
        yield store


def parse_endpoints(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of etcd endpoints; each is checked, and kept as written."""
    from overlayd.store.etcd.endpoints import parse_endpoint

    endpoints = tuple(part.strip() for part in text.split(","))
    for endpoint in endpoints:
        parse_endpoint(endpoint)
    return endpoints


def parse_prefix(text: str) -> str:
    """Parse a key prefix such as /coreos.com/network."""
    from overlayd.store.etcd.keys import parse_prefix as parse

    return parse(text)


def parse_username(text: str) -> str:
    """Parse a user name for etcd."""
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError(f"{text!r} is not a user name: give printable characters without spaces around them")
    return text


def parse_switch(text: str) -> bool:
    """Parse a switch; flannel's words are the first of each two."""
    words = {"true": True, "on": True, "false": False, "off": False}
    if text not in words:
        raise ValueError(f"{text!r} is not one of {', '.join(words)}")
    return words[text]


def parse_path(text: str) -> Path:
    """Parse an absolute path."""
    path = Path(text)
    if not path.is_absolute():
        raise ValueError(f"{text!r} is relative: give a path that starts with '/'")
    return path


def parse_iface(text: str) -> str:
    """Parse an interface name (15 bytes at most, linux/if.h IFNAMSIZ) or an IPv4 address."""
    if not text or len(text.encode()) > 15 or re.search(r"[\s/]", text):
        raise ValueError(f"{text!r} is neither an interface name nor an IPv4 address")
    return text


def parse_iface_regex(text: str) -> Matching:
    """Parse a regular expression in Python's syntax."""
    from overlayd.core.host.underlay import Matching

    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    if not text:
        raise ValueError("the pattern is empty and matches every interface: write it like ^eth or ^10[.]0[.]")
    return Matching(pattern)


def parse_target(text: str) -> Reaching:
    """Parse an address that packets can be sent to."""
    from overlayd.core.host.underlay import Reaching

    try:
        address = IPv4Address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 address like 10.0.0.1") from None
    if not is_host_address(address):
        raise ValueError(f"{text} is not an address of another host: give a unicast address")
    return Reaching(address)


def parse_listen(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Parse `ADDRESS:PORT`, `[IPV6]:PORT`, or a port alone for the loopback."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} ends with no port of 1 to 65535: write it like 8286 or 10.0.0.5:8286")
    if ":" not in text:
        return IPv4Address("127.0.0.1"), int(port)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = IPv6Address(bare) if bare != host else IPv4Address(bare)
    except ValueError:
        raise ValueError(
            f"{host!r} is not an address: write it like 10.0.0.5:8286 or [fd00::5]:8286, 0.0.0.0 and [::] for all"
        ) from None
    return address, int(port)


def parse_ttl(text: str) -> int:
    """Parse the TTL of a lease, in seconds."""
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) < TTL_MIN:
        raise ValueError(f"{text!r} is not a number of seconds of at least {TTL_MIN}")
    return int(text)
