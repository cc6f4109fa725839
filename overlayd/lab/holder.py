"""The holder of a lab: PID 1 of its namespaces, `python -m overlayd.lab.holder SPEC LIFELINE`.

The lab is up while the holder runs.  When it ends, the kernel kills every process of its PID namespace, and with
the last of them it removes the network namespaces, the mounts and the tmpfs with all files.  Nothing needs to be
cleaned up, so nothing can be left behind.

It starts as an ordinary process that has inherited its end of the lifeline (a socket pair, see lifeline.py).  It
binds the lab's name (see control.py) while it is still in the host's network namespace, then moves to namespaces
of its own and forks: the child is the holder, the parent only waits for its end.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

from overlayd.lab.blueprint import program_environment
from overlayd.lab.control import CONTROL_SOCKET, LabError, socket_name
from overlayd.lab.control_server import ControlServer
from overlayd.lab.lifeline import DETACH, LaunchFailed, News, Up, encode
from overlayd.lab.model import HOME, LabSpec
from overlayd.lab.namespaces import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    Forbidden,
    mount,
    unshare_all,
)
from overlayd.lab.processes import Spawner
from overlayd.lab.provision import Provisioner, ProvisionError
from overlayd.lab.state import LabState

log = logging.getLogger("overlayd.lab")


def main(arguments: list[str]) -> int:
    spec = msgspec.json.decode(arguments[0], type=LabSpec)
    lifeline = socket.socket(fileno=int(arguments[1]))
    lifeline.set_inheritable(False)
    try:
        name = bind_name(spec)
        unshare_all()
        child = os.fork()
    except (LabError, Forbidden, OSError) as error:
        lifeline.sendall(encode(LaunchFailed(str(error))))
        return 1
    if child:
        lifeline.close()
        name.close()
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) & 0xFF
    return run_holder(spec, lifeline, name)


def bind_name(spec: LabSpec) -> socket.socket:
    """Bind the abstract socket that makes this process the lab of that name.

    It does not listen yet: a client is shown the credentials of the process that calls listen(2), which must be
    the holder.  Raises LabError if the name is taken.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(socket_name(spec.name))
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise LabError(
            f"a lab named {spec.name!r} is up already: `overlayd lab down --name {spec.name}` ends it, "
            "and `--name` gives a second one another name"
        ) from error
    return sock


def run_holder(spec: LabSpec, lifeline: socket.socket, name: socket.socket) -> int:
    """Run the holder until the lab ends; its exit status."""
    try:
        mount_file_systems()
    except OSError as error:
        reason = f"this system refuses a lab file systems of its own ({error}): a container may need --privileged"
        lifeline.sendall(encode(LaunchFailed(reason)))
        return 1
    try:
        log.info("lab %s: %s", spec.name, spec)
        trio.run(hold, spec, lifeline, name)
    except BaseException as error:  # the command that waits for the lab is told of any of them
        log.exception("the holder failed")
        lines = tuple(traceback.format_exc().splitlines())
        with suppress(OSError):  # no command waits after the lab was detached
            lifeline.sendall(encode(LaunchFailed(f"the lab's holder failed: {error!r}", lines)))
        raise
    return 0


def mount_file_systems() -> None:
    """Mount a /proc and a /sys that show the lab, and an empty /run with the lab's home in it."""
    needed = [Path(path).resolve().parts for path in (sys.prefix, sys.base_prefix, *sys.path)]
    hidden = {entry for _, top, entry, *_ in (p for p in needed if len(p) > 2) if top == "run"}
    kept = {entry: os.open(f"/run/{entry}", os.O_PATH | os.O_CLOEXEC) for entry in hidden}
    os.chdir("/")
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for entry, fd in kept.items():  # the interpreter or the package may itself be under /run
        Path("/run", entry).mkdir()
        mount(f"/proc/self/fd/{fd}", f"/run/{entry}", "", MS_BIND | MS_REC)
        os.close(fd)
    for directory in (HOME, HOME / "tmp", HOME / "build"):
        directory.mkdir()
    environment = program_environment(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(HOME / "holder.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    for standard in (1, 2):
        os.dup2(output, standard)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")


async def hold(spec: LabSpec, lifeline_socket: socket.socket, name: socket.socket) -> None:
    """Build the lab and hold it until the lifeline, a request or a signal ends it."""
    lifeline = Lifeline(lifeline_socket)
    spawner = Spawner(os.environ)
    async with trio.open_nursery() as nursery:
        end = nursery.cancel_scope.cancel
        nursery.start_soon(spawner.reap)
        nursery.start_soon(end_on_signal, end)
        state = LabState(spec, spawner)
        server = ControlServer(state, end)
        await nursery.start(server.serve, name)
        await nursery.start(server.serve, bind_control_socket())
        nursery.start_soon(build, state, lifeline, end)
        if not await lifeline.wait_detached():
            log.info("the lifeline ended before the lab was detached")
            end()


async def build(state: LabState, lifeline: Lifeline, end: Callable[[], None]) -> None:
    try:
        await Provisioner(state, lifeline.tell).build()
    except* ProvisionError as group:
        failure = first_of(group)
        log.error("%s", failure)  # noqa: TRY400 - a sentence that needs no traceback
        await lifeline.tell(LaunchFailed(str(failure), failure.log))
        end()
    else:
        await lifeline.tell(Up(state.snapshot))


def first_of(group: BaseExceptionGroup[ProvisionError]) -> ProvisionError:
    """Return the first failure of a group."""
    error = group.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error


def bind_control_socket() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(CONTROL_SOCKET))
    return sock


async def end_on_signal(end: Callable[[], None]) -> None:
    """End the lab on SIGTERM or SIGINT: as PID 1, the holder would ignore a signal that it does not catch."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for signum in signals:
            log.info("ended by %s", signal.Signals(signum).name)
            end()


class Lifeline:
    """The holder's end of the lifeline."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._turn = trio.Lock()

    async def tell(self, news: News) -> None:
        # wait_detached notices that the other end has closed, and acts on it.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._turn:
                await self._stream.send_all(encode(news))

    async def wait_detached(self) -> bool:
        """Wait until the other end has sent DETACH; False if it closed before."""
        async with self._stream:
            heard = b""
            while not heard.endswith(DETACH):
                try:
                    chunk = await self._stream.receive_some()
                except trio.BrokenResourceError:
                    return False
                if not chunk:
                    return False
                heard += chunk
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
