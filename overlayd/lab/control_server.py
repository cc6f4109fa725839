"""The holder's side of the control channel (see control.py): it lets in its own user and answers."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import msgspec
import trio

from overlayd.lab.control import Ask, LabError, LabRequest, Reply, peer_credentials
from overlayd.lab.state import LabState

PATIENCE = 10.0
"""Seconds that a client may take to say what it wants."""


class ControlServer:
    def __init__(self, lab_state: LabState, end: Callable[[], None]) -> None:
        self._lab_state = lab_state
        self._end = end

    async def serve(
        self,
        sock: socket.socket,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer on a bound socket until cancelled."""
        sock.listen(16)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        await trio.serve_listeners(self._serve_one, [listener], task_status=task_status)

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        _, uid = peer_credentials(stream.socket)
        # A client that has gone before it was answered is no matter of ours: it is theirs to ask again.
        with suppress(trio.BrokenResourceError):
            async with stream:
                if uid == os.geteuid():
                    await self._converse(stream)

    async def _converse(self, stream: trio.SocketStream) -> None:
        try:
            with trio.fail_after(PATIENCE):
                request = msgspec.json.decode(await _read_line(stream), type=LabRequest)
            reply = await self._answer(request)
        except LabError as error:
            reply = Reply(str(error))
        except (trio.TooSlowError, msgspec.MsgspecError) as error:
            reply = Reply(f"this is no request to a lab: {error}")
        await stream.send_all(msgspec.json.encode(reply))
        if not reply.error and request.ask is Ask.DOWN:
            self._end()

    async def _answer(self, request: LabRequest) -> Reply:
        lab_state = self._lab_state
        match request.ask:
            case Ask.STATUS:
                voices = await lab_state.ask_daemons()
                return Reply(facts=lab_state.facts, voices=voices)
            case Ask.START:
                lab_state.start(request.whom)
            case Ask.STOP:
                await lab_state.end(request.whom, signal.SIGTERM)
            case Ask.KILL:
                await lab_state.end(request.whom, signal.SIGKILL)
            case Ask.PAUSE:
                lab_state.pause(request.whom)
            case Ask.RESUME:
                lab_state.resume(request.whom)
            case Ask.FACTS | Ask.DOWN:
                pass
        return Reply(facts=lab_state.facts)


async def _read_line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        chunk = await stream.receive_some()
        if not chunk:
            break
        line += chunk
    return line
