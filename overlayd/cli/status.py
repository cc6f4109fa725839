"""`overlayd status`: ask the running daemon and print its answer.

Exit status 0 healthy, 1 degraded, 2 cannot tell. A missing or outdated answer is never healthy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence

from overlayd.cli.options import add_run_dir_option
from overlayd.core.status.registry import ConditionType, Truth
from overlayd.core.status.status import DatapathStatus, FirewallStatus, PeerStatus, StatusAnswer, Verdict
from overlayd.core.text.table import format_table

HEADLINES = {Verdict.HEALTHY: "healthy", Verdict.DEGRADED: "degraded", Verdict.UNKNOWN: "cannot tell"}


def configure(parser: argparse.ArgumentParser) -> None:
    add_run_dir_option(parser)
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")


def run(args: argparse.Namespace) -> int:
    import trio

    from overlayd.api.status_socket import StatusUnavailableError, query_status
    from overlayd.host.clock import boottime

    try:
        answer = trio.run(query_status, args.run_dir)
    except StatusUnavailableError as error:
        if args.json:
            print(_json({"now": boottime(), "verdict": Verdict.UNKNOWN, "reason": str(error), "status": None}))
        else:
            print(f"cannot tell: {error}", file=sys.stderr)
        return Verdict.UNKNOWN
    if args.json:
        print(_json(answer))
    else:
        print(render(answer))
    return answer.verdict


def _json(answer: object) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(answer)).decode()


def render(answer: StatusAnswer) -> str:
    """Render the answer for a terminal: the verdict, the node, its peers, and the problems last."""
    return "\n".join(_lines(answer))


def _lines(answer: StatusAnswer) -> Iterator[str]:
    status, now = answer.status, answer.now
    reason = f": {answer.reason}" if answer.reason else ""
    yield f"{HEADLINES[answer.verdict]}{reason}"
    yield ""
    underlay = status.underlay
    where = f"  {underlay.address} on {underlay.link}, MTU {underlay.mtu}" if underlay is not None else ""
    if underlay is not None and underlay.public_ip != underlay.address:
        where += f", known to peers as {underlay.public_ip}"
    yield f"node     {status.node}{where}"
    yield f"lease    {_lease(answer)}"
    if status.network is not None:
        yield f"network  {status.network}"
    if status.backend is not None:
        device = f" on {status.device}, MTU {status.mtu}" if status.device is not None else ""
        yield f"backend  {status.backend}{device}"
    if status.datapath is not None:
        yield from _datapath(status.datapath)
    if status.firewall is not None:
        yield from _firewall(status.firewall)
    known = "" if status.in_sync else "  (the store has not been read yet)"
    yield f"peers    {status.peers_in_sync}/{len(status.peers)}{known}"
    if status.peers:
        yield ""
        rows = [("NODE", "SUBNET", "UNDERLAY", "STATE", "SINCE", ""), *_rows(status.peers, now)]
        yield from format_table(rows, indent="  ")
    if status.problems:
        yield ""
        yield "problems"
        for problem in status.problems:
            yield f"  {problem.text}  [{problem.code}]"
            if problem.remedy:
                yield f"    → {problem.remedy}"


def _datapath(datapath: DatapathStatus) -> Iterator[str]:
    """Render the datapath: its choice, its offloads, its counters, and why it stopped last."""
    offloads = ", ".join(datapath.offloads) or "no offloads"
    yield f"datapath {datapath.implementation} ({datapath.reason}), with {offloads}"
    count = datapath.counters.get
    sent = f"sent {count('tx_packets', 0)} packets in {count('tx_sends', 0)} sends"
    yield f"         {sent}, received {count('rx_packets', 0)} in {count('rx_writes', 0)} writes"
    yield from _drops(datapath.drops)
    if datapath.trouble:
        yield f"         it has stopped before: {datapath.trouble}"


def _firewall(firewall: FirewallStatus) -> Iterator[str]:
    """Render the rules in nft and the packets that they dropped."""
    sources = "sources checked" if firewall.source_check else f"sources not checked: {firewall.reason}"
    yield f"firewall {'masquerading, ' if firewall.masquerade else ''}{sources}"
    yield from _drops(firewall.drops)


def _drops(drops: Mapping[str, int]) -> Iterator[str]:
    counted = {reason: number for reason, number in sorted(drops.items()) if number}
    if counted:
        yield "dropped  " + ", ".join(f"{number} {reason}" for reason, number in counted.items())


def _lease(answer: StatusAnswer) -> str:
    lease, belief, now = answer.status.lease, answer.status.belief, answer.now
    if lease is None:
        return f"none ({belief})"
    if lease.until is None:
        left = "reserved, does not expire"
    elif lease.until > now:
        left = f"{age(lease.until - now)} left"
    else:
        left = f"ran out {age(now - lease.until)} ago"
    judged = next((c for c in answer.status.conditions if c.type is ConditionType.LEASE_HELD), None)
    since = lease.since if judged is None or judged.status is Truth.TRUE else judged.since
    return f"{lease.subnet}  {belief} for {age(now - since)}, {left}"


def _rows(peers: Sequence[PeerStatus], now: float) -> Iterator[tuple[str, ...]]:
    for peer in peers:
        yield (peer.node, peer.subnet, peer.public_ip, peer.state.value, age(now - peer.since), peer.reason)


def age(seconds: float) -> str:
    """Render a span of time in its two largest units: 42s, 3m 20s, 5h 1m, 12d 3h."""
    rest = max(0, int(seconds))
    units = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
    counts = []
    for name, size in units:
        count, rest = divmod(rest, size)
        counts.append((count, name))
    first = next((place for place, (count, _) in enumerate(counts) if count), len(counts) - 1)
    shown = [f"{count}{name}" for count, name in counts[first : first + 2] if count]
    return " ".join(shown) or "0s"
