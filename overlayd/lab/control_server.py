"""The holder's side of the control channel (see control.py): it answers requests of its own user."""

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
"""Seconds that a client may take to send its request."""


class ControlServer:
    """Answers requests about a lab; `end` takes the lab down."""

    def __init__(self, state: LabState, end: Callable[[], None]) -> None:
        self._state = state
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
        # A client that hung up before it was answered asks again if it still needs the answer.
        with suppress(trio.BrokenResourceError):
            async with stream:
                if uid == os.geteuid():
                    await self._serve_request(stream)

    async def _serve_request(self, stream: trio.SocketStream) -> None:
        try:
            with trio.fail_after(PATIENCE):
                request = msgspec.json.decode(await _read_line(stream), type=LabRequest)
            reply = await self._answer(request)
        except LabError as error:
            reply = Reply(str(error))
        except (trio.TooSlowError, msgspec.MsgspecError) as error:
            reply = Reply(f"this is not a request to a lab: {error}")
        await stream.send_all(msgspec.json.encode(reply))
        if not reply.error and request.ask is Ask.DOWN:
            self._end()

    async def _answer(self, request: LabRequest) -> Reply:
        state = self._state
        match request.ask:
            case Ask.STATUS:
                answers = await state.ask_daemons()
                return Reply(snapshot=state.snapshot, answers=answers)
            case Ask.START:
                state.start(request.whom)
            case Ask.STOP:
                await state.end(request.whom, signal.SIGTERM)
            case Ask.KILL:
                await state.end(request.whom, signal.SIGKILL)
            case Ask.PAUSE:
                state.pause(request.whom)
            case Ask.RESUME:
                state.resume(request.whom)
            case Ask.SNAPSHOT | Ask.DOWN:
                pass
        return Reply(snapshot=state.snapshot)


async def _read_line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        chunk = await stream.receive_some()
        if not chunk:
            break
        line += chunk
    return line
