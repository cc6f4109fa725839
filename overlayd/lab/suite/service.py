"""Checks that pods are reached by a service's address, which nodes translate as kube-proxy does.

Each pod gets a service of its own: an address of a range for tests, which every node translates to the pod's.  A
packet from outside of the network, or from the pod that it goes to, is marked before that, and marked packets
leave with the node's address; else the answer would take another path back.  kube-proxy does the same, with its
mark (--iptables-masquerade-bit 14).  All of it is in one nftables table, and removed with it.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from socket import SocketKind

import trio

from overlayd.core.firewall.policy import KUBE_PROXY_MARK
from overlayd.host.nft.program import run_nft
from overlayd.lab.model import LabNode
from overlayd.lab.suite.connectivity import Exchange
from overlayd.lab.suite.echo_protocol import EchoReply
from overlayd.lab.suite.ports import Port
from overlayd.lab.suite.probing import CannotShow, Limits, Outcomes
from overlayd.lab.suite.topology import ProbeEndpoint, ProbePair, Topology

RANGE = IPv4Network("198.18.0.0/15")
"""RFC 2544: for tests of networks."""
TABLE = "ip overlayd_lab"


@dataclass(frozen=True)
class ExchangeByService:
    """A check of every pair over each of these protocols, each target by the address of its service."""

    port: Port
    over: Sequence[SocketKind]

    async def __call__(self, topology: Topology, pairs: tuple[ProbePair, ...], limits: Limits) -> Outcomes:
        services = addresses(topology)
        by_service = {
            pair: ProbePair(pair.source, replace(pair.target, address=services[pair.target])) for pair in pairs
        }

        def judge(pair: ProbePair, answer: EchoReply) -> str | None:
            return why_wrong_source(topology, pair, answer)

        async with AsyncExitStack() as stack:
            for node in topology.spec.all_nodes:
                await stack.enter_async_context(translating(node, topology.spec.network, services))
            exchange = Exchange(self.port, self.over, judge=judge)
            found = await exchange(topology, tuple(by_service.values()), limits)
        return {pair: found[other] for pair, other in by_service.items()}


def addresses(topology: Topology) -> Mapping[ProbeEndpoint, IPv4Address]:
    """Assign a service's address to each pod."""
    return {pod: RANGE[number] for number, pod in enumerate(topology.pods, start=1)}


def why_wrong_source(topology: Topology, pair: ProbePair, answer: EchoReply) -> str | None:
    """Tell what is wrong with the source address of a request, if anything.

    It must be a pod's own, if that asks another pod; for a node, or a pod that asks itself, one of the node's.
    """
    is_pod = pair.source in topology.pods
    if is_pod and pair.source.name != pair.target.name:
        allowed = frozenset({pair.source.address})
    else:
        allowed = topology.router_addresses(pair.source.node)
    if IPv4Address(answer.source) in allowed:
        return None
    return f"{pair.target.name} saw it come from {answer.source}, not {' or '.join(map(str, sorted(allowed)))}"


def script(network: str, services: Mapping[ProbeEndpoint, IPv4Address]) -> str:
    """Write the table, for the program nft."""
    to_pods = ", ".join(f"{service} : {pod.address}" for pod, service in services.items())
    to_themselves = ", ".join(f"{pod.address} . {service}" for pod, service in services.items())
    mark = f"meta mark set meta mark | {KUBE_PROXY_MARK}"
    return f"""
        table {TABLE} {{
          chain services {{
            ip daddr {RANGE} ip saddr != {network} {mark}
            ip saddr . ip daddr {{ {to_themselves} }} {mark}
            dnat to ip daddr map {{ {to_pods} }}
          }}
          chain prerouting {{ type nat hook prerouting priority -100; jump services; }}
          chain output {{ type nat hook output priority -100; jump services; }}
          chain postrouting {{
            type nat hook postrouting priority 100;
            meta mark & {KUBE_PROXY_MARK} == 0 return
            meta mark set meta mark ^ {KUBE_PROXY_MARK}
            masquerade
          }}
        }}
    """


@asynccontextmanager
async def translating(
    node: LabNode, network: str, services: Mapping[ProbeEndpoint, IPv4Address]
) -> AsyncGenerator[None, None]:
    """Make the services reachable from this node and its pods while the context is open.  Raises CannotShow
    without nft.

    The route is for the node's own packets, which would not get as far as to be translated without any."""
    await _nft(node, script(network, services))
    route = f"{RANGE} dev eth0"
    try:
        await _ip(node, f"route add {route}")
        yield
    finally:
        with trio.CancelScope(shield=True):
            await _ip(node, f"route delete {route}")
            await _nft(node, f"delete table {TABLE}")


async def _nft(node: LabNode, text: str) -> None:
    try:
        ran = await run_nft(node.name, "--file", "-", script=text)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        raise CannotShow(error.strerror or str(error)) from error
    if ran.trouble or ran.refusals:
        raise CannotShow(f"nft refuses services on {node.name}: {ran.trouble or ran.refusals[0][1]}")


async def _ip(node: LabNode, command: str) -> None:
    await trio.run_process(["ip", "-n", node.name, *command.split()])
