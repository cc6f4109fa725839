"""What may be concluded from a status, and how it reads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from overlayd.api.status_socket import StatusUnavailableError, query_status, serve_status
from overlayd.cli import main
from overlayd.cli.status import age, render
from overlayd.core.status.health import answer
from overlayd.core.status.status import (
    DatapathStatus,
    LeaseStatus,
    PeerState,
    PeerStatus,
    ProblemStatus,
    Status,
    StatusAnswer,
    UnderlayStatus,
    Verdict,
)
from support import statuses
from support.statuses import NOW, REFUSED

GOOD = msgspec.structs.replace(
    statuses.GOOD,
    network="10.244.0.0/16",
    backend="vxlan",
    device="ovl.1",
    mtu=1450,
    underlay=UnderlayStatus("eth0", "10.99.0.1", "10.99.0.1", 1500),
    peers=(
        PeerStatus("node2", "10.244.8.0/24", "10.99.0.2", PeerState.IN_SYNC, NOW - 200),
        PeerStatus("node3", "10.244.19.0/24", "10.99.0.3", PeerState.IN_SYNC, NOW - 7_000),
    ),
)
replace = msgspec.structs.replace


def judge(status: Status, now: float = NOW) -> tuple[Verdict, str]:
    told = answer(status, now)
    return told.verdict, told.reason


def test_a_good_status_is_healthy() -> None:
    assert judge(GOOD) == (Verdict.HEALTHY, "")
    assert judge(replace(GOOD, peers=())) == (Verdict.HEALTHY, "")
    reserved = replace(GOOD, lease=LeaseStatus("10.244.7.0/24", NOW - 1, until=None))
    assert judge(reserved) == (Verdict.HEALTHY, "")


@pytest.mark.parametrize(
    ("status", "now", "verdict", "said"),
    [
        (GOOD, NOW + 56, Verdict.UNKNOWN, "61 s ago"),
        (replace(GOOD, at=NOW + 86_010), NOW + 86_011, Verdict.UNKNOWN, "lease is fenced"),
        (replace(GOOD, lease=None, belief="unclaimed"), NOW, Verdict.DEGRADED, "unclaimed"),
        (replace(GOOD, belief="fenced"), NOW, Verdict.UNKNOWN, "fenced"),
        (replace(GOOD, in_sync=False), NOW, Verdict.DEGRADED, "the store has not been read yet"),
        (replace(GOOD, programmed=False), NOW, Verdict.DEGRADED, "not all in the kernel"),
        (replace(GOOD, network=None), NOW, Verdict.DEGRADED, "not known yet"),
        (replace(GOOD, underlay=None), NOW, Verdict.DEGRADED, "not known yet"),
        (replace(GOOD, peers=(*GOOD.peers, REFUSED)), NOW, Verdict.DEGRADED, "1 of 3 peers"),
        (replace(GOOD, problems=(ProblemStatus("x", "y"),)), NOW, Verdict.DEGRADED, "problems"),
    ],
)
def test_nothing_less_is_healthy(status: Status, now: float, verdict: Verdict, said: str) -> None:
    found, reason = judge(status, now)
    assert found is verdict
    assert said in reason


def test_a_healthy_answer_reads_well() -> None:
    assert (
        render(answer(GOOD, NOW))
        == """\
healthy

node     node1  10.99.0.1 on eth0, MTU 1500
lease    10.244.7.0/24  held for 1h 59m, 23h 53m left
network  10.244.0.0/16
backend  vxlan on ovl.1, MTU 1450
peers    2/2

  NODE   SUBNET          UNDERLAY   STATE    SINCE
  node2  10.244.8.0/24   10.99.0.2  in sync  3m 20s
  node3  10.244.19.0/24  10.99.0.3  in sync  1h 56m"""
    )


def test_a_degraded_answer_puts_the_problems_last_with_what_mends_them() -> None:
    status = replace(
        GOOD,
        peers=(*GOOD.peers, REFUSED),
        underlay=UnderlayStatus("eth0", "10.99.0.1", "203.0.113.9", 1500),
        problems=(
            ProblemStatus("no-config", "there is no network config", "Write one"),
            ProblemStatus("store-unreachable", "etcd does not answer"),
        ),
    )
    lines = render(answer(status, NOW)).splitlines()
    assert lines[0] == "degraded: 1 of 3 peers are not in sync"
    assert "node     node1  10.99.0.1 on eth0, MTU 1500, known to peers as 203.0.113.9" in lines
    assert "peers    2/3" in lines
    assert "  node4  10.244.4.0/24   10.99.0.4  refused  0s      runs backend 'udp'" in lines
    assert lines[-4:] == [
        "problems",
        "  there is no network config  [no-config]",
        "    → Write one",
        "  etcd does not answer  [store-unreachable]",
    ]


def test_a_daemon_that_has_just_started_shows_what_it_lacks() -> None:
    bare = Status("0.1.0", NOW, 30.0, "node1", "ab12", NOW, "unclaimed", in_sync=False, revision=0)
    assert render(answer(bare, NOW)).splitlines() == [
        "degraded: this node's lease is unclaimed",
        "",
        "node     node1",
        "lease    none (unclaimed)",
        "peers    0/0  (the store has not been read yet)",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-3, "0s"),
        (59, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (3_605, "1h"),
        (90_000, "1d 1h"),
        (1e6, "11d 13h"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


async def test_the_socket_gives_the_answer_of_the_moment(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    moments = iter([answer(GOOD, NOW), answer(GOOD, NOW + 1_000)])
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_status, run_dir, lambda: next(moments))
        assert await query_status(run_dir) == answer(GOOD, NOW)
        assert (await query_status(run_dir)).verdict is Verdict.UNKNOWN
        nursery.cancel_scope.cancel()
    assert not list(run_dir.iterdir())


async def test_a_large_answer_and_a_caller_that_hangs_up(tmp_path: Path) -> None:
    many = tuple(
        PeerStatus(f"node{n}", f"10.{n >> 8}.{n & 255}.0/24", "10.99.0.2", PeerState.IN_SYNC, NOW)
        for n in range(5_000)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_status, tmp_path, lambda: answer(replace(GOOD, peers=many), NOW))
        rude = await trio.open_unix_socket(str(tmp_path / "status.sock"))
        await rude.aclose()
        assert len((await query_status(tmp_path)).status.peers) == 5_000
        nursery.cancel_scope.cancel()


async def test_silence_is_never_an_answer(tmp_path: Path) -> None:
    with pytest.raises(StatusUnavailableError, match="no daemon runs here: there is no"):
        await query_status(tmp_path)
    with trio.socket.socket(trio.socket.AF_UNIX) as dead:
        await dead.bind(str(tmp_path / "status.sock"))
        with pytest.raises(StatusUnavailableError, match="nobody listens"):
            await query_status(tmp_path)


async def test_an_answer_of_something_else_is_no_answer(tmp_path: Path) -> None:
    async def lie(stream: trio.SocketStream) -> None:
        await stream.send_all(b'{"verdict": 0}')
        await stream.aclose()

    with trio.socket.socket(trio.socket.AF_UNIX) as socket:
        await socket.bind(str(tmp_path / "status.sock"))
        socket.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, lie, [trio.SocketListener(socket)])
            with pytest.raises(StatusUnavailableError, match="can't be read"):
                await query_status(tmp_path)
            nursery.cancel_scope.cancel()


def test_the_command_without_a_daemon_cannot_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--run-dir", str(tmp_path)]) == 2
    assert "cannot tell: no daemon runs here" in capsys.readouterr().err
    assert main(["status", "--json", "--run-dir", str(tmp_path)]) == 2
    said = msgspec.json.decode(capsys.readouterr().out)
    assert (said["verdict"], said["status"]) == (2, None)


def test_an_answer_survives_json() -> None:
    told = answer(GOOD, NOW)
    assert msgspec.json.decode(msgspec.json.encode(told), type=StatusAnswer) == told


def test_a_datapath_is_shown_with_what_it_dropped_and_why_it_stopped() -> None:
    datapath = DatapathStatus(
        "python",
        "the C datapath is missing",
        ("checksum", "tso"),
        {"tx_packets": 90, "tx_sends": 3, "rx_packets": 50, "rx_writes": 7},
        {"unknown_sender": 12, "truncated": 0, "bad_source": 5},
        "[Errno 77] File descriptor in bad state",
    )
    lines = render(
        StatusAnswer(NOW, Verdict.HEALTHY, "", replace(GOOD, backend="udp", datapath=datapath))
    ).splitlines()
    start = lines.index("datapath python (the C datapath is missing), with checksum, tso")
    assert lines[start + 1 : start + 4] == [
        "         sent 90 packets in 3 sends, received 50 in 7 writes",
        "dropped  5 bad_source, 12 unknown_sender",
        "         it has stopped before: [Errno 77] File descriptor in bad state",
    ]
    quiet = replace(GOOD, datapath=DatapathStatus("c", "it was asked for", (), {}, {"truncated": 0}))
    text = render(StatusAnswer(NOW, Verdict.HEALTHY, "", quiet))
    assert "datapath c (it was asked for), with no offloads" in text
    assert "dropped" not in text
    assert "stopped" not in text


def test_long_name_of_a_peer_is_cut_on_the_terminal_and_whole_in_json() -> None:
    name = "n" * 253
    hostile = replace(GOOD, peers=(replace(GOOD.peers[0], node=name), replace(GOOD.peers[1], node="a\x1b[2Jb")))
    told = answer(hostile, NOW)
    text = render(told)
    assert max(map(len, text.splitlines())) < 140
    assert f"  {name[:63]}…  10.244.8.0/24" in text
    assert "a\\x1b[2Jb" in text
    assert "\x1b" not in text
    assert name.encode() in msgspec.json.encode(told)
