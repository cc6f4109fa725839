"""The pages over HTTP: what they say, and that strangers can neither stall nor bloat the daemon."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from overlayd.api import http
from overlayd.api.http import is_ours
from overlayd.api.pages import respond
from overlayd.cli.options import parse_listen
from overlayd.core.status.health import answer
from overlayd.core.status.status import LeaseStatus, ProblemStatus, Status, StatusAnswer
from overlayd.host.listeners import ListenError, open_listeners
from support.statuses import GOOD, NOW, REFUSED

replace = msgspec.structs.replace


def page(path: str, status: Status, now: float = NOW) -> tuple[int, str]:
    found = respond(path, answer(status, now))
    return found.status, found.body.decode()


@pytest.mark.parametrize(
    ("status", "now", "said"),
    [
        (GOOD, NOW + 56, "the daemon last looked at the kernel 61 s ago"),
        (
            replace(GOOD, at=NOW + 86_010),
            NOW + 86_011,
            "this node's lease is fenced: it could not be renewed in time",
        ),
        (replace(GOOD, lease=None, belief="unclaimed"), NOW, "this node's lease is unclaimed"),
        (replace(GOOD, belief="fenced"), NOW, "this node's lease is fenced"),
        (replace(GOOD, belief="lost"), NOW, "this node's lease is lost"),
        (replace(GOOD, in_sync=False), NOW, "the store has not been read yet"),
        (replace(GOOD, programmed=False), NOW, "what this node itself needs is not all in the kernel"),
    ],
)
def test_a_node_is_not_ready_while_something_that_pods_need_is_in_doubt(
    status: Status, now: float, said: str
) -> None:
    assert page("/readyz", status, now)[0] == 503
    assert page("/readyz", status, now)[1].startswith(f"not ready: {said}")


def test_a_node_is_ready_although_a_peer_can_not_be_served() -> None:
    assert page("/readyz", GOOD) == (200, "ready\n")
    reserved = replace(GOOD, lease=LeaseStatus("10.244.7.0/24", NOW - 1, until=None))
    assert page("/readyz", reserved) == (200, "ready\n")
    ill = replace(GOOD, peers=(REFUSED,), problems=(ProblemStatus("key-unknown", "a key is unknown"),))
    assert page("/readyz", ill) == (200, "ready\n")


def test_what_may_be_the_cause_is_told_with_the_reason() -> None:
    away = replace(
        GOOD, lease=None, belief="unclaimed", problems=(ProblemStatus("store-unreachable", "etcd is away"),)
    )
    said = "not ready: this node's lease is unclaimed\nstore-unreachable: etcd is away\n"
    assert page("/readyz", away) == (503, said)


def test_a_daemon_is_alive_while_its_loop_goes_round() -> None:
    assert page("/healthz", replace(GOOD, lease=None, belief="lost", programmed=False)) == (200, "alive\n")
    assert page("/healthz", GOOD, NOW + 56) == (
        503,
        "not alive: the daemon last looked at the kernel 61 s ago\n",
    )


def test_the_status_is_the_one_of_overlayd_status() -> None:
    found = respond("/status", answer(GOOD, NOW))
    assert found.media_type == "application/json"
    assert msgspec.json.decode(found.body, type=StatusAnswer) == answer(GOOD, NOW)


def test_another_path_is_told_which_there_are() -> None:
    assert page("/", GOOD) == (404, "there are /healthz, /readyz, /metrics, /status\n")


# Over real sockets


class HttpServer:
    def __init__(self, port: int) -> None:
        self.port = port

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(self, request: bytes) -> bytes:
        """Everything that comes back, until the end."""
        with trio.fail_after(20):
            async with await self.connect() as stream:
                await stream.send_all(request)
                return await read(stream)

    async def status_of(self, request: bytes) -> int:
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", await self.ask(request))
        assert found is not None
        return int(found[1])


async def pour(stream: trio.SocketStream) -> None:
    with trio.fail_after(20):
        while True:
            await stream.send_all(bytes(http.REST_MOST))


async def read(stream: trio.SocketStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


@asynccontextmanager
async def serving(status: Status = GOOD) -> AsyncGenerator[HttpServer]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(http.serve_http, listeners, lambda: answer(status, NOW))
        yield HttpServer(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


PROBE = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_request_is_answered_and_the_connection_ends() -> None:
    async with serving() as server:
        head, _, body = (await server.ask(PROBE)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Length: 6\r\n" in head
        assert b"Connection: close" in head
        assert body == b"ready\n"
        assert await server.status_of(b"GET /readyz?verbose HTTP/1.0\r\n\r\n") == 200
        head, _, body = (await server.ask(PROBE.replace(b"GET", b"HEAD"))).partition(b"\r\n\r\n")
        assert b"Content-Length: 6\r\n" in head
        assert not body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /status HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9 + b"\r\n\r\n", 400),
        (b"GET /" + b"a" * http.HEAD_MOST, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (1 << 20), 431),
    ],
)
async def test_what_is_no_request_for_a_page_is_refused(request_: bytes, status: int) -> None:
    async with serving() as server:
        try:
            assert await server.status_of(request_) == status
        except trio.BrokenResourceError:
            assert len(request_) > http.REST_MOST, "only who sends without end may be cut off"
        assert await server.status_of(PROBE) == 200


async def test_a_body_is_not_waited_for_and_not_kept() -> None:
    async with serving() as server:
        large = PROBE.replace(b"\r\n\r\n", b"\r\nContent-Length: 100000\r\n\r\n") + bytes(100_000)
        assert (await server.ask(large)).endswith(b"ready\n")
        promised = PROBE.replace(b"\r\n\r\n", b"\r\nContent-Length: 9000000000\r\n\r\n")
        async with await server.connect() as stream:
            await stream.send_all(promised)
            assert (await read(stream)).endswith(b"ready\n")
        async with await server.connect() as stream:
            await stream.send_all(promised)
            with pytest.raises(trio.BrokenResourceError):
                await pour(stream)


async def test_a_thousand_idle_connections_lock_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE", 600.0)
    async with serving() as server, trio.open_nursery() as nursery:
        idle = []
        for number in range(1_000):
            stream = await server.connect()
            await stream.send_all(b"GET /readyz" if number % 2 else b"")
            idle.append(stream)
            if number % 100 == 99:
                assert await server.status_of(PROBE) == 200
        with trio.fail_after(20):
            for stream in idle[: -http.SEATS]:
                assert await read(stream) == b"", "its seat was given to somebody else"
        for stream in idle:
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_who_dawdles_is_asked_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.1)
    many = replace(GOOD, peers=(REFUSED,) * 200_000)
    async with serving(many) as server:
        with trio.fail_after(20):
            async with await server.connect() as silent:
                assert await read(silent) == b""
            async with await server.connect() as slow:
                await slow.send_all(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
                await trio.sleep(0.5)
                assert len(await read(slow)) < 200_000 * 100, "the rest is not sent for ever"
        assert await server.status_of(PROBE) == 200


async def test_who_hangs_up_harms_nobody() -> None:
    async with serving(replace(GOOD, peers=(REFUSED,) * 20_000)) as server:
        for request in (b"", b"GET", b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"):
            stream = await server.connect()
            await stream.send_all(request)
            await stream.aclose()
        assert await server.status_of(PROBE) == 200


ODDITIES = (
    *(b"GET", b"HEAD", b"CONNECT", b"PRI * HTTP/2.0", b" ", b"/status", b"/\xff\x00", b"*", b"http://x/readyz"),
    *(b" HTTP/1.1", b" HTTP/1.0", b" HTTP/9.9", b"\r\n", b"\n", b"\r\n\r\n", b"Host: x", b"Host: y\r\n", b"\x00"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"zz\r\n"),
    *(b"Expect: 100-continue\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
)


@given(st.lists(st.sampled_from(ODDITIES) | st.binary(max_size=9), max_size=9).map(b"".join))
def test_whatever_is_sent_gets_an_answer_or_none_and_nothing_breaks(request: bytes) -> None:
    async def visit() -> bytes:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(request)
        await theirs.send_eof()
        async with ours:
            await http.converse(ours, lambda: answer(GOOD, NOW))
        return b"".join([chunk async for chunk in theirs])

    said = trio.run(visit)
    assert re.match(rb"HTTP/1\.1 (200|400|404|405|431|501|505) [A-Z]", said) or not said


# The port


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("8286", ("127.0.0.1", 8286)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("10.0.0.5:65535", ("10.0.0.5", 65_535)),
        ("[::1]:8286", ("::1", 8286)),
    ],
)
def test_a_port_alone_means_the_loopback(text: str, where: tuple[str, int]) -> None:
    address, port = parse_listen(text)
    assert (str(address), port) == where


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *(
            (text, "ends with no port of 1 to 65535")
            for text in ("", "0", "65536", "10.0.0.5", "x:", "٨٢٨٦", "-1")
        ),
        *((text, "is not an address") for text in (":8286", "localhost:8286", "::1:8286", "[10.0.0.5]:1", "[]:1")),
    ],
)
def test_what_is_no_place_to_listen_at_is_refused_with_what_would_be(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_listen(text)


async def test_a_taken_port_is_refused_with_who_has_it() -> None:
    [listener] = await open_listeners(IPv4Address("127.0.0.1"), 0)
    async with listener:
        port = listener.socket.getsockname()[1]
        said = rf"^--listen 127.0.0.1:{port} is not to be had: .+ \(pid {os.getpid()}\) listens there"
        with pytest.raises(ListenError, match=said):
            await open_listeners(IPv4Address("127.0.0.1"), port)


async def test_an_address_of_another_host_is_refused() -> None:
    with pytest.raises(
        ListenError, match=r"--listen 192.0.2.1:8286 .*: no interface of this host has the address"
    ):
        await open_listeners(IPv4Address("192.0.2.1"), 8286)
    with pytest.raises(ListenError, match=r"--listen \[2001:db8::1\]:8286 is not to be had"):
        await open_listeners(IPv6Address("2001:db8::1"), 8286)


@pytest.mark.parametrize(
    ("host", "is_answered"),
    [
        ("127.0.0.1:9100", True),
        ("[::1]:9100", True),
        ("[fd00::7]", True),
        ("10.0.0.5", True),
        ("localhost:9100", True),
        ("node7", True),
        ("Node7.example.com:9100", True),
        ("evil.example.com", False),
        ("evil.example.com:9100", False),
        ("127.0.0.1.evil.example.com", False),
    ],
)
def test_a_host_header_that_is_no_name_of_this_node_is_refused(host: str, is_answered: bool) -> None:
    assert is_ours(host, "node7") is is_answered
