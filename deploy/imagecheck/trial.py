"""Runs the daemon of a built image on two nodes, with the rights that the DaemonSet gives, and lets pods talk.

A node is a network namespace on a common bridge; the daemon's process has a mount namespace in which the image is
its root, read-only but for what the manifest mounts from the host, and /proc/sys is read-only as a container's is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PATIENCE = 60.0
"""Seconds until the overlay must carry packets."""


class TrialFailed(Exception):
    """The text says what did not work, and on which node."""


@dataclass(frozen=True)
class Rights:
    """The daemon's rights by the manifest: its capabilities, and the host's paths that it sees, each with
    whether it may write there."""

    capabilities: tuple[str, ...]
    host_paths: dict[str, bool]

    @classmethod
    def of(cls, daemon_set: Path) -> Rights:
        pod: dict[str, Any] = yaml.safe_load(daemon_set.read_text())["spec"]["template"]["spec"]
        [container] = pod["containers"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"], "the trial makes the root read-only"
        assert not context["allowPrivilegeEscalation"], "the trial sets no_new_privs"
        assert context["capabilities"]["drop"] == ["ALL"]
        mounts = {mount["name"]: not mount.get("readOnly", False) for mount in container["volumeMounts"]}
        paths = {
            volume["hostPath"]["path"]: mounts[volume["name"]] for volume in pod["volumes"] if "hostPath" in volume
        }
        return cls(tuple(context["capabilities"]["add"]), paths)


class TrialNode:
    """One host with its daemon and a pod, in namespaces that are named after this process."""

    def __init__(self, number: int, image: Path, rights: Rights, home: Path) -> None:
        self.number = number
        self.name = f"image-{os.getpid()}-{number}"
        self.pod = f"{self.name}-pod"
        self.address = f"10.99.0.{number}"
        self._image = image
        self._rights = rights
        self.home = home / f"node{number}"

    def start(self, endpoint: str, config: Path) -> subprocess.Popen[bytes]:
        """Start the daemon as a container of the DaemonSet runs it."""
        script = [
            f'mount --bind "{self._image}" "{self._image}"',
            f'cd "{self._image}"',
            "mount -t proc proc proc",
            "mount -t tmpfs tmpfs dev",
            "for one in null zero urandom; do touch dev/$one; mount --bind /dev/$one dev/$one; done",
            *self._mounts(config),
            "mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys",
            f'mount -o remount,bind,ro "{self._image}"',
            'exec chroot . "$@"',
        ]
        keep = ",".join(["-all", *(f"+{name.lower()}" for name in self._rights.capabilities)])
        drop = ["setpriv", f"--bounding-set={keep}", "--inh-caps=-all", "--no-new-privs", "--"]
        daemon = ["/usr/local/bin/overlayd", "run", "--node-name", f"node{self.number}"]
        daemon += ["--etcd-endpoints", endpoint, "--network-config", "/etc/overlayd/network.json"]
        inside = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--",
            "sh",
            "-ec",
            "\n".join(script),
            "sh",
        ]
        with (self.home / "log").open("wb") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *inside, *drop, *daemon],
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
            )

    def _mounts(self, config: Path) -> Iterator[str]:
        """Mount points first: afterwards the root is read-only."""
        paths = {**self._rights.host_paths, "/etc/overlayd": False}
        for path, writable in paths.items():
            own = self.home / path.lstrip("/")
            inside = path.lstrip("/")
            if path.startswith("/dev/"):
                yield f'mkdir -p "{os.path.dirname(inside)}"; touch "{inside}"; mount --bind "{path}" "{inside}"'
                continue
            is_file = path in ("/etc/machine-id", "/run/xtables.lock")
            own.parent.mkdir(parents=True, exist_ok=True)
            if is_file:
                own.write_text("0" * 31 + str(self.number) + "\n")
            else:
                own.mkdir(exist_ok=True)
            make = f'touch "{inside}"' if is_file else f'mkdir -p "{inside}"'
            yield f'{make}; mount --bind "{own}" "{inside}"' + (
                "" if writable else f'; mount -o remount,bind,ro "{inside}"'
            )
        (self.home / "etc/overlayd/network.json").write_bytes(config.read_bytes())

    def subnet(self) -> dict[str, str] | None:
        file = self.home / "run/flannel/subnet.env"
        if not file.exists():
            return None
        return dict(line.split("=", 1) for line in file.read_text().split())

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")


@contextmanager
def underlay(nodes: Sequence[TrialNode]) -> Iterator[str]:
    """Make the nodes' namespaces on a bridge, which has an address itself, for etcd."""
    hub = f"image-{os.getpid()}-hub"
    with ExitStack() as stack:
        for name in (hub, *(node.name for node in nodes), *(node.pod for node in nodes)):
            _run("ip", "netns", "add", name)
            stack.callback(_run, "ip", "netns", "delete", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", hub, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", hub, "address", "add", "10.99.255.1/16", "dev", "br0")
        _run("ip", "-n", hub, "link", "set", "br0", "up")
        for node in nodes:
            port = f"node{node.number}"
            peer = ["type", "veth", "peer", "name", "eth0", "netns", node.name]
            _run("ip", "-n", hub, "link", "add", port, *peer)
            _run("ip", "-n", hub, "link", "set", port, "master", "br0", "up")
            _run("ip", "-n", node.name, "address", "add", f"{node.address}/16", "dev", "eth0")
            _run("ip", "-n", node.name, "link", "set", "eth0", "up")
            _run("ip", "-n", node.name, "route", "add", "default", "via", "10.99.255.1")
        yield hub


@contextmanager
def etcd(hub: str, program: Path, home: Path) -> Iterator[str]:
    """Run a real etcd on the underlay; provide its endpoint."""
    url = "http://10.99.255.1"
    command = ["ip", "netns", "exec", hub, str(program), "--name=trial", f"--data-dir={home / 'etcd'}"]
    command += [f"--listen-client-urls={url}:2379", f"--advertise-client-urls={url}:2379"]
    command += [f"--listen-peer-urls={url}:2380", f"--initial-advertise-peer-urls={url}:2380"]
    command += [f"--initial-cluster=trial={url}:2380"]
    with (home / "etcd.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"{url}:2379"
    finally:
        process.kill()
        process.wait()


def give_pod(node: TrialNode) -> str:
    """Make a bridge with a pod behind it, as the CNI plugins do; return the pod's address."""
    subnet = node.subnet()
    assert subnet is not None
    gateway, length = subnet["FLANNEL_SUBNET"].split("/")
    address = gateway.rsplit(".", 1)[0] + ".2"
    mtu = subnet["FLANNEL_MTU"]
    _run("ip", "-n", node.name, "link", "add", "cni0", "mtu", mtu, "type", "bridge")
    _run("ip", "-n", node.name, "address", "add", f"{gateway}/{length}", "dev", "cni0")
    _run("ip", "-n", node.name, "link", "set", "cni0", "up")
    peer = ["type", "veth", "peer", "name", "eth0", "mtu", mtu, "netns", node.pod]
    _run("ip", "-n", node.name, "link", "add", "pod", "mtu", mtu, *peer)
    _run("ip", "-n", node.name, "link", "set", "pod", "master", "cni0", "up")
    _run("ip", "-n", node.pod, "address", "add", f"{address}/{length}", "dev", "eth0")
    _run("ip", "-n", node.pod, "link", "set", "eth0", "up")
    _run("ip", "-n", node.pod, "route", "add", "default", "via", gateway)
    return address


SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], 7)) as server:
    print("listening", flush=True)
    stream, peer = server.accept()
    with stream:
        data = b"".join(iter(lambda: stream.recv(65536), b""))
        stream.sendall(peer[0].encode() + b" %d" % len(data))
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 7), timeout=20) as stream:
    stream.sendall(bytes(1_000_000))
    stream.shutdown(socket.SHUT_WR)
    print(b"".join(iter(lambda: stream.recv(65536), b"")).decode())
"""


def talk(client: TrialNode, source: str, server: TrialNode, destination: str) -> None:
    """Send a megabyte over TCP; the server must see the pod's own address.  Raises TrialFailed."""
    inside = ["ip", "netns", "exec"]
    listening = subprocess.Popen(
        [*inside, server.pod, sys.executable, "-c", SERVER, destination], stdout=subprocess.PIPE, text=True
    )
    try:
        assert listening.stdout is not None
        listening.stdout.readline()
        done = subprocess.run(
            [*inside, client.pod, sys.executable, "-c", CLIENT, destination],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    finally:
        listening.kill()
        listening.wait()
    if done.stdout.split() != [source, "1000000"]:
        raise TrialFailed(f"{source} on {client.name} does not reach {destination}: {done.stdout}{done.stderr}")


def trial(image: Path, rights: Rights, etcd_program: Path, backend: str, work: Path) -> None:
    """Try two nodes over this backend.  Raises TrialFailed."""
    home = work / f"trial-{backend}"
    nodes = [TrialNode(number, image, rights, home) for number in (1, 2)]
    for node in nodes:
        node.home.mkdir(parents=True)
    config = home / "network.json"
    config.write_text(json.dumps({"Network": "10.244.0.0/16", "Backend": {"Type": backend}}))
    with underlay(nodes) as hub, etcd(hub, etcd_program, home) as endpoint, ExitStack() as stack:
        for node in nodes:
            stack.callback(stop, node, node.start(endpoint, config))
        _wait_until_healthy(nodes)
        addresses = [give_pod(node) for node in nodes]
        talk(nodes[0], addresses[0], nodes[1], addresses[1])
        talk(nodes[1], addresses[1], nodes[0], addresses[0])
    for node in nodes:
        if "Traceback" in node.log():
            raise TrialFailed(f"the daemon of node{node.number} stumbled:\n{node.log()}")


def stop(node: TrialNode, container: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the container's first process, as an engine does.  Raises TrialFailed unless it ends
    well."""
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
    for child in children:  # unshare itself ignores SIGTERM while it waits
        os.kill(int(child), signal.SIGTERM)
    try:
        status = container.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        container.kill()
        raise TrialFailed(f"the daemon of node{node.number} does not stop:\n{node.log()}") from None
    if status:
        raise TrialFailed(f"the daemon of node{node.number} ended with status {status}:\n{node.log()}")


def _wait_until_healthy(nodes: Sequence[TrialNode]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answers = [_status(node) for node in nodes]
        if all(answer.get("verdict") == 0 and len(answer["status"]["peers"]) == 1 for answer in answers):
            return
        time.sleep(0.3)
    told = "\n".join(
        f"node{n.number}: {json.dumps(a)[:3000]}\n{n.log()[-3000:]}" for n, a in zip(nodes, answers, strict=True)
    )
    raise TrialFailed(f"the nodes are not healthy after {PATIENCE:.0f} s:\n{told}")


def _status(node: TrialNode) -> dict[str, Any]:
    """Ask the daemon by its socket, in the host's run directory."""
    done = subprocess.run(
        [sys.executable, "-m", "overlayd", "status", "--json", "--run-dir", str(node.home / "run/overlayd")],
        capture_output=True,
        text=True,
        check=False,
    )
    answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return answer


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrialFailed(f"{' '.join(command)}: {done.stderr.strip()}")
