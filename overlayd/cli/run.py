"""`overlayd run`: read the options, open the host and the store, and run the daemon until it is told to stop."""

from __future__ import annotations

import argparse
import logging
import os
import random
import re
import signal
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import trio

from overlayd.cli import CommandError
from overlayd.cli.options import (
    DEFAULT_CNI_BIN_DIR,
    add_iface_option,
    add_option,
    add_run_dir_option,
    add_state_dir_option,
    add_store_options,
    add_subnet_file_option,
    open_store,
    parse_listen,
    parse_path,
    parse_switch,
    parse_ttl,
    pick_iface,
)
from overlayd.core.leases.keeper.state import TTL_DEFAULT, TTL_MIN
from overlayd.core.network.addresses import is_host_address
from overlayd.core.network.config import ConfigError

if TYPE_CHECKING:
    from overlayd.core.firewall.policy import Firewall
    from overlayd.core.network.first_config import FirstConfig
    from overlayd.core.status.status import StatusAnswer

SUBNET_CHANGED = 3
"""Exit status with --on-subnet-change=exit: the supervisor of the daemon may then restart the pods."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_store_options(parser)
    add_option(
        parser,
        "--network-config",
        parse=read_first_config,
        default=None,
        help="file with the network config of the cluster, written to the store if it has none yet",
        metavar="FILE",
    )
    add_iface_option(parser)
    add_option(
        parser,
        "--public-ip",
        parse=parse_public_ip,
        default=None,
        absent="the address of the underlay interface",
        help="IPv4 address to which peers send",
        metavar="IP",
    )
    add_subnet_file_option(parser)
    add_option(
        parser,
        "--cni-conf-dir",
        parse=parse_path,
        default=None,
        absent="no conflist is written",
        help="directory to write the CNI conflist to, where container runtimes read it",
        metavar="DIR",
    )
    add_option(
        parser,
        "--cni-bin-dir",
        parse=parse_path,
        default=DEFAULT_CNI_BIN_DIR,
        help="directory of the CNI plugins",
        metavar="DIR",
    )
    add_state_dir_option(parser)
    add_option(
        parser,
        "--identity",
        parse=_one_of("durable", "volatile"),
        default="durable",
        help="durable: the state directory survives a reboot; volatile: it does not, as on hosts without a disk",
        metavar="HOW",
    )
    add_run_dir_option(parser)
    add_option(
        parser,
        "--lease-ttl",
        parse=parse_ttl,
        default=str(TTL_DEFAULT),
        help=f"lease TTL in seconds, at least {TTL_MIN}",
        metavar="SECONDS",
    )
    add_option(
        parser,
        "--fence",
        parse=_one_of("lenient", "strict"),
        default="lenient",
        help="forwarding once the lease may have expired: lenient goes on, strict stops",
        metavar="HOW",
    )
    add_option(
        parser,
        "--on-subnet-change",
        parse=_one_of("continue", "exit"),
        default="continue",
        help="reaction to the loss of the subnet: continue with another one, or exit with status 3",
        metavar="WHAT",
    )
    add_option(
        parser,
        "--node-name",
        parse=parse_node_name,
        default=None,
        absent="the host name",
        help="name of this node in status",
        metavar="NAME",
    )
    add_option(
        parser,
        "--datapath",
        parse=_one_of("c", "python"),
        default=None,
        absent="c if it was built, else python",
        help="datapath of the udp backend: c or python",
        metavar="WHICH",
    )
    add_option(
        parser,
        "--ip-masq",
        parse=parse_switch,
        default="false",
        help="masquerade packets that leave the network of the pods; needs nft",
        metavar="true|false",
        bare="true",
    )
    add_option(
        parser,
        "--source-check",
        parse=parse_switch,
        default=None,
        absent="on if nft is usable",
        help="drop VXLAN packets whose source belongs to no peer; needs nft",
        metavar="on|off",
    )
    add_option(
        parser,
        "--iptables-forward-rules",
        parse=parse_switch,
        default="true",
        help="accept the pods' packets in the chain FORWARD, where iptables is in use",
        metavar="true|false",
        bare="true",
    )
    add_option(
        parser,
        "--listen",
        parse=parse_listen,
        default=None,
        absent="no listener",
        help="serve /healthz, /readyz, /metrics and /status; a port alone means the loopback",
        metavar="[ADDRESS:]PORT",
    )
    add_option(
        parser,
        "--log-level",
        parse=parse_log_level,
        default="info",
        help="log level: debug, info, warning or error",
        metavar="LEVEL",
    )


def run(args: argparse.Namespace) -> int:
    from overlayd.api.status_socket import SocketUnusableError
    from overlayd.core.firewall.policy import FirewallError
    from overlayd.core.kernel.datapath import DatapathUnavailableError
    from overlayd.host.identity import IdentityError
    from overlayd.host.listeners import ListenError
    from overlayd.node.log import log_to
    from overlayd.node.subnet_guard import SubnetChanged

    log_to(level=args.log_level)
    ends: list[CommandError] = []  # an error raised inside an `except*` would come out wrapped in a group
    try:
        trio.run(_run, args)
    except* IdentityError as errors:
        ends.append(CommandError(_innermost(errors)))
    except* (SocketUnusableError, ListenError) as errors:
        ends.append(CommandError(_innermost(errors)))
    except* (DatapathUnavailableError, FirewallError) as errors:
        ends.append(CommandError(_innermost(errors), 2))
    except* SubnetChanged as errors:
        ends.append(CommandError(_innermost(errors), SUBNET_CHANGED))
    if ends:
        raise ends[0]
    return 0


def _innermost(group: BaseExceptionGroup[BaseException]) -> str:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return str(first)


async def _run(args: argparse.Namespace) -> None:
    from overlayd.api.status_socket import serve_status
    from overlayd.host.cleanup_state import CleanupStateFile
    from overlayd.host.clock import boottime
    from overlayd.host.conflist import ConflistFile
    from overlayd.host.drivers import open_drivers
    from overlayd.host.host_reader import HostReader
    from overlayd.host.identity import hold_identity
    from overlayd.host.netlink.connection import open_netlink
    from overlayd.host.systemd import NotifyError, keep_informed, take_supervisor
    from overlayd.node.daemon import Daemon
    from overlayd.node.settings import HostEdges, Settings
    from overlayd.plugins import load_backends, load_drivers
    from overlayd.store.leases import StoreLeases

    pick = pick_iface(args)
    try:
        supervisor = take_supervisor(os.environ, os.getpid())
    except NotifyError as error:
        raise CommandError(str(error), 2) from error

    async with (
        open_drivers(load_drivers(), args.datapath, args.run_dir) as drivers,
        open_netlink(devices=drivers.driver.devices) as netlink,
        open_store(args) as store,
    ):
        settings = Settings(
            args.node_name or _host_name(),
            args.etcd_prefix,
            args.subnet_file,
            args.lease_ttl,
            pick,
            args.public_ip,
            strict_fence=args.fence == "strict",
            exit_on_new_subnet=args.on_subnet_change == "exit",
            firewall=await _decide_firewall(args.ip_masq, args.source_check),
            first_config=args.network_config,
            cni=ConflistFile(args.cni_conf_dir, args.cni_bin_dir) if args.cni_conf_dir is not None else None,
            forward_rules=args.iptables_forward_rules,
        )
        with hold_identity(args.state_dir, may_be_volatile=args.identity == "volatile") as identity:
            cleanup_state = CleanupStateFile(args.run_dir)
            reader = HostReader(netlink, pick, drivers.read_drops, drivers.look_at_firewalls)
            host = HostEdges(drivers.driver, reader, boottime, cleanup_state, drivers.driver.report)
            daemon = Daemon(
                settings, identity, StoreLeases(store), host, load_backends(), random.Random(os.urandom(16))
            )
            async with trio.open_nursery() as nursery:
                await nursery.start(_stop_at_signal, nursery.cancel_scope)
                await nursery.start(serve_status, args.run_dir, daemon.answer)
                if args.listen is not None:
                    await nursery.start(_serve_pages, args.listen, daemon.answer)
                if supervisor is not None:
                    nursery.start_soon(keep_informed, supervisor, daemon.answer)
                await daemon.run()


async def _decide_firewall(masquerade: bool, source_check: bool | None) -> Firewall:
    """Decide what nft does, by what this host offers.  Raises FirewallError."""
    from overlayd.core.firewall.policy import decide
    from overlayd.host.nft.probe import find_obstacle

    firewall = decide(masquerade, source_check, await find_obstacle())
    if not firewall.source_check:
        logging.getLogger("overlayd.cli").warning(
            "sources of packets unchecked", extra={"reason": firewall.reason}
        )
    return firewall


async def _serve_pages(
    where: tuple[IPv4Address | IPv6Address, int],
    current: Callable[[], StatusAnswer],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    from overlayd.api.http import serve_http  # 4 MB that are loaded only if asked for
    from overlayd.host.listeners import open_listeners

    await serve_http(await open_listeners(*where), current, task_status)


async def _stop_at_signal(
    daemon: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            logging.getLogger("overlayd.cli").info("stopping", extra={"signal": signal.Signals(number).name})
            daemon.cancel()


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return parse


def read_first_config(file: str) -> FirstConfig:
    """Read and check the first config.  Raises ValueError if the file can't be read or its config not be used."""
    from overlayd.core.network.backend_choice import check_backend
    from overlayd.core.network.config import parse_config
    from overlayd.core.network.first_config import FirstConfig
    from overlayd.core.text.strict_json import SIZE_LIMIT
    from overlayd.plugins import load_backends

    try:
        with open(file, "rb") as source:
            value = source.read(SIZE_LIMIT + 1).strip()
    except OSError as error:
        raise ValueError(f"can't read {file}: {error.strerror}") from error
    try:
        check_backend(parse_config(value), load_backends())
    except ConfigError as error:
        faults = "; ".join(str(error).splitlines())
        raise ValueError(f"{file} is not a valid network config: {faults}") from error
    return FirstConfig(file, value)


def parse_public_ip(text: str) -> IPv4Address:
    try:
        address = IPv4Address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 address like 203.0.113.7") from None
    if not is_host_address(address):
        raise ValueError(f"{text} is not an address that peers can send to: give a unicast address of this host")
    return address


def parse_node_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", text, re.ASCII):
        raise ValueError(f"{text!r} is not a node name: letters, digits, dots, hyphens; 253 at most")
    return text


def _host_name() -> str:
    try:
        return parse_node_name(socket.gethostname())
    except ValueError as error:
        raise CommandError(f"the host name is unusable: {error}; give another by --node-name") from error


def parse_log_level(text: str) -> int:
    levels = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
    if text.lower() not in levels:
        raise ValueError(f"{text!r} is not one of {', '.join(levels)}")
    return levels[text.lower()]
