"""Serves the pages over HTTP/1.1: one request per connection, one answer, good-bye.

Whoever connects is a stranger.  What each of them can cost is bounded: a request head of HEAD_MOST bytes, a body
that is never read into memory, PATIENCE seconds in all, and SEATS of them at once.  When all seats are taken the
newcomer gets the seat of whoever has sat longest: a prompt visitor is answered and gone within a few turns of the
scheduler, so only slow clients lose their seat, and nobody can lock the probes out by holding connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from http import HTTPStatus
from ipaddress import ip_address

import h11
import trio
from trio.abc import HalfCloseableStream

from overlayd.api.pages import Page, explain, respond
from overlayd.core.status.status import StatusAnswer

SEATS = 32
"""Visitors at once.  Each may hold one page; a /status with 5,000 peers takes 0.8 MB."""
PATIENCE = 5.0
"""Seconds from the connection to its end."""
HEAD_MOST = 8 << 10
"""Bytes of a request's first line and headers together."""
REST_MOST = 256 << 10
"""Bytes that are read and thrown away after the answer.  Closing a socket with unread data resets the connection,
which can take the answer away from under the visitor's eyes (RFC 9112, section 9.6)."""


async def serve_http(
    listeners: Sequence[trio.SocketListener],
    current: Callable[[], StatusAnswer],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer until cancelled; the listeners are closed then.  `current` gives the answer of the moment."""
    seats = _Seats()

    async def receive(stream: trio.SocketStream) -> None:
        with seats.take():
            try:
                async with stream:
                    await converse(stream, current)
            except trio.BrokenResourceError:
                pass  # whoever asked has gone: it is theirs to ask again

    await trio.serve_listeners(receive, [*listeners], task_status=task_status)  # type: ignore[arg-type]


class _Seats:
    def __init__(self) -> None:
        self._taken: dict[trio.CancelScope, None] = {}
        """In the order of arrival."""

    @contextmanager
    def take(self) -> Iterator[None]:
        while len(self._taken) >= SEATS:
            longest = next(iter(self._taken))
            del self._taken[longest]
            longest.cancel()
        with trio.move_on_after(PATIENCE) as visit:
            self._taken[visit] = None
            try:
                yield
            finally:
                self._taken.pop(visit, None)


async def converse(stream: HalfCloseableStream, current: Callable[[], StatusAnswer]) -> None:
    """Read one request, answer it, and read on until the visitor has had time to take the answer in.

    Raises trio.BrokenResourceError where the visitor left before, and nothing else whatever is sent.
    """
    conversation = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MOST)
    request: h11.Request | None = None
    try:
        request = await _read_request(stream, conversation)
        if request is None:
            return
        page = _answer(request, current)
    except h11.RemoteProtocolError as error:
        page = explain(error.error_status_hint, f"not a request: {error}")
    await stream.send_all(_pack(conversation, page, is_head=request is not None and request.method == b"HEAD"))
    await stream.send_eof()
    rest = REST_MOST
    while rest > 0 and (chunk := await stream.receive_some(min(rest, HEAD_MOST))):
        rest -= len(chunk)


async def _read_request(stream: HalfCloseableStream, conversation: h11.Connection) -> h11.Request | None:
    """Read the head of the request, None if the visitor left without one.  Raises h11.RemoteProtocolError."""
    while True:
        event = conversation.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        conversation.receive_data(bytes(await stream.receive_some(HEAD_MOST)))


def _answer(request: h11.Request, current: Callable[[], StatusAnswer]) -> Page:
    if request.method not in (b"GET", b"HEAD"):
        return explain(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered here")
    answer = current()
    hosts = [value.decode("ascii", "replace") for name, value in request.headers if name == b"host"]
    if not all(is_ours(host, answer.status.node) for host in hosts):
        return explain(HTTPStatus.MISDIRECTED_REQUEST, "ask by an IP address, localhost, or this node's name")
    return respond(request.target.decode("ascii").partition("?")[0], answer)


def is_ours(host: str, node: str) -> bool:
    """Tell whether a Host header (RFC 9110, section 7.2) can mean this node.

    A page in a browser can let a name of its own lead here (DNS rebinding), and would then read what we answer.
    So a name with dots is answered only if it begins with this node's.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        first, dot, _ = name.lower().partition(".")
        return not dot or first == node.lower().partition(".")[0]
    return True


def _pack(conversation: h11.Connection, page: Page, *, is_head: bool) -> bytes:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", page.media_type),
        ("Content-Length", str(len(page.body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ]
    if page.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET, HEAD"))
    head = conversation.send(
        h11.Response(status_code=page.status, reason=HTTPStatus(page.status).phrase, headers=headers)
    )
    assert head is not None
    return head if is_head else head + page.body
