"""The status socket: whoever connects gets the daemon's answer as one JSON document, then the end of file.

It is a unix socket in the run directory, open to every local user: a status holds no secrets and nothing can
be asked for but the status.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from overlayd.core.status.status import StatusAnswer

NAME = "status.sock"
PATIENCE = 5.0
"""Seconds that either side waits for the other."""


class StatusUnavailableError(Exception):
    """No daemon answered; the text says why."""


class SocketUnusableError(Exception):
    """There can be no status socket here; the text says why."""


async def serve_status(
    run_dir: Path,
    current: Callable[[], StatusAnswer],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on `<run_dir>/status.sock` until cancelled.  A socket that a killed daemon left is replaced, one that
    answers is not.  Raises SocketUnusableError if there can't be one."""
    path = run_dir / NAME
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        try:
            _free(path)
            await listening.bind(os.fspath(path))
            path.chmod(0o666)
            listening.listen(16)
        except OSError as error:
            raise SocketUnusableError(
                f"the status socket {path} can't be made: {error.strerror or error}. Choose another --run-dir"
            ) from error

        async def give(stream: trio.SocketStream) -> None:
            with trio.move_on_after(PATIENCE):
                try:
                    async with stream:
                        await stream.send_all(msgspec.json.encode(current()))
                except trio.BrokenResourceError:
                    pass  # whoever asked has gone: it is theirs to ask again

        try:
            await trio.serve_listeners(give, [trio.SocketListener(listening)], task_status=task_status)  # type: ignore[arg-type]
        finally:
            path.unlink(missing_ok=True)


def _free(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
        else:
            raise OSError(errno.EADDRINUSE, "another daemon answers there")


async def query_status(run_dir: Path) -> StatusAnswer:
    """Ask the daemon whose run directory this is; raises StatusUnavailableError."""
    path = run_dir / NAME
    try:
        with trio.fail_after(PATIENCE):
            async with await trio.open_unix_socket(os.fspath(path)) as stream:
                return msgspec.json.decode(b"".join([chunk async for chunk in stream]), type=StatusAnswer)
    except FileNotFoundError:
        raise StatusUnavailableError(f"no daemon runs here: there is no {path}") from None
    except ConnectionRefusedError:
        raise StatusUnavailableError(f"no daemon runs here: nobody listens on {path}") from None
    except trio.TooSlowError:
        raise StatusUnavailableError(f"the daemon did not answer on {path} within {PATIENCE:.0f} s") from None
    except (OSError, trio.BrokenResourceError) as error:
        raise StatusUnavailableError(f"{path} can't be asked: {error}") from error
    except msgspec.DecodeError as error:
        raise StatusUnavailableError(f"the answer on {path} can't be read: {error}") from error
