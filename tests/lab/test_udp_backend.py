"""The udp backend on the nodes of a lab, over the C datapath and over Python's: what it says and what it bears."""

from __future__ import annotations

import json
import re
import sys

import pytest

from overlayd.lab.control import Ask
from overlayd.lab.suite.catalogue import CHECKS
from support.lab import Labs
from support.udp_lab import DEVICE, UdpLab, until

C, PYTHON = "node1", "node2"


@pytest.fixture(scope="module")
def lab(labs: Labs) -> UdpLab:
    return UdpLab(labs)


def test_status_says_which_datapath_runs_and_why(lab: UdpLab) -> None:
    assert lab.reaches("pod1-1", "pod2-1")
    for node, name in ((C, "c"), (PYTHON, "python")):
        datapath = lab.datapath(node)
        assert (datapath.implementation, datapath.reason) == (name, "it was asked for")
        assert {"checksum", "tso", "udp_segment", "udp_gro"} <= set(datapath.offloads)
        assert datapath.counters["tx_packets"] > 0
        assert datapath.counters["rx_packets"] > 0


def test_every_check_of_the_suite_passes_between_c_and_python(lab: UdpLab) -> None:
    done = lab.run(None, sys.executable, "-m", "overlayd.lab.suite", "--json")
    found = {
        check["name"]: [pair["passed"] for pair in check["pairs"]] for check in json.loads(done.stdout)["checks"]
    }
    assert found.keys() == {check.name for check in CHECKS}
    assert found.pop("masquerade-outside") == [], "it needs --ip-masq"
    assert all(passed and all(passed) for passed in found.values()), done.stdout


ECHO = "import socket\nc, _ = socket.create_server(('', 7000)).accept()\nwhile d := c.recv(9): c.sendall(d)"
ASK = """
import socket, sys, time
c = socket.create_connection((sys.argv[1], 7000), 10); c.settimeout(20)
for n in range(200):
    c.sendall(b'%08d' % n); got = c.recv(8, socket.MSG_WAITALL)
    assert got == b'%08d' % n, (got, n)
    time.sleep(0.01)
print('all echoed')
"""


def index_of(lab: UdpLab, node: str) -> int:
    (link,) = json.loads(lab.shell(node, f"ip -j link show {DEVICE}"))
    return int(link["ifindex"])


def test_a_stream_goes_on_while_daemons_are_killed_and_started_and_the_device_stays(lab: UdpLab) -> None:
    before = [index_of(lab, node) for node in (C, PYTHON)]
    with lab.start_python("pod2-1", ECHO):
        until(lambda: ":7000" in lab.shell("pod2-1", "ss -ltn"))
        with lab.start_python("pod1-1", ASK, lab.addresses["pod2-1"]) as client:
            for node, end in ((C, Ask.KILL), (PYTHON, Ask.STOP)):
                lab.held.lab.ask(end, node)
                assert index_of(lab, node) in before, "it outlives the daemon"
                lab.held.lab.ask(Ask.START, node)
            said, complained = client.communicate(timeout=60)
        assert said == "all echoed\n", complained
    until(lab.is_healthy)
    assert [index_of(lab, node) for node in (C, PYTHON)] == before


LOOKALIKE = f"""
for attempt in 1 2 3 4 5 6 7 8 9; do
    printf 'link delete {DEVICE}\\ntuntap add {DEVICE} mode tun multi_queue\\n' | ip -batch - && exit
    sleep 0.3
done
exit 1
"""
"""In one process, and more than once: the daemon puts its own device there within milliseconds."""


@pytest.mark.parametrize(
    ("node", "fault"),
    [
        (C, f"ip link delete {DEVICE}"),
        (PYTHON, f"ip link delete {DEVICE}"),
        pytest.param(C, LOOKALIKE, id="node1-a lookalike"),
        (PYTHON, f"ip link set {DEVICE} mtu 1300"),
        (C, f"ip address flush dev {DEVICE}"),
        (PYTHON, f"ip route delete 10.244.0.0/16 dev {DEVICE}"),
        (C, "ip route prepend 10.244.0.0/16 via 10.99.0.77 proto static"),
        (PYTHON, f"ip address add 10.244.250.9/32 dev {DEVICE}"),
    ],
)
def test_a_fault_is_healed_and_packets_pass_again(lab: UdpLab, node: str, fault: str) -> None:
    def look() -> str:
        device = lab.run(node, "ip", "-d", "-o", "address", "show", DEVICE).stdout
        return re.sub(r"(?m)^\d+:", "", device) + lab.run(node, "ip", "route", "show", "dev", DEVICE).stdout

    before = look()
    lab.shell(node, fault)
    until(lambda: look() == before and lab.works())
    lab.run(node, "ip", "route", "delete", "10.244.0.0/16", "proto", "static")  # a stranger's: it stayed


@pytest.mark.parametrize("node", [C, PYTHON])
def test_a_device_that_is_set_down_is_no_death(lab: UdpLab, node: str) -> None:
    """It refuses packets for a while, and the threads bear it."""
    trouble = lab.datapath(node).trouble
    lab.shell(node, f"ip link set {DEVICE} down")
    until(lab.works)
    assert lab.datapath(node).trouble == trouble


@pytest.mark.parametrize("node", [C, PYTHON])
def test_the_datapath_follows_the_underlays_mtu(lab: UdpLab, node: str) -> None:
    for mtu in (1400, 1500):
        lab.shell(node, f"ip link set eth0 mtu {mtu}")
        until(lambda mtu=mtu: f"mtu {mtu - 28} " in lab.shell(node, f"ip link show {DEVICE}"))  # type: ignore[misc]
        until(lambda mtu=mtu: lab.answer(node).status.mtu == mtu - 28)  # type: ignore[misc]
        assert f"FLANNEL_MTU={mtu - 28}\n" in lab.shell(node, 'cat "$OVERLAYD_SUBNET_FILE"')
        assert lab.works()


@pytest.mark.long
@pytest.mark.parametrize("node", [C, PYTHON])
def test_a_node_that_gets_another_underlay_address_is_reached_there(lab: UdpLab, node: str) -> None:
    """It takes its time, as the connection to etcd had the old one."""
    other = PYTHON if node == C else C
    old, new = f"10.99.0.{node[-1]}", f"10.99.7.{node[-1]}"
    for before, after in ((old, new), (new, old)):
        lab.shell(node, f"ip address add {after}/16 dev eth0; ip address delete {before}/16 dev eth0")
        lab.shell(node, f"ip address show dev eth0 | grep -q {after} || ip address add {after}/16 dev eth0")
        until(lambda after=after: after in {p.public_ip for p in lab.answer(other).status.peers})  # type: ignore[misc]
        until(lab.works)


BOUNCE = """
import socket, sys
from overlayd.lab.suite.icmp_errors import IP_RECVERR, find_icmp_error
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
s.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE: don't fragment, whatever is known
s.connect((sys.argv[1], 9999))
s.settimeout(2)
for _ in range(5):
    s.send(bytes(int(sys.argv[2])))
    try:
        s.recv(99)
    except TimeoutError:
        continue
    except OSError:
        pass
    error = find_icmp_error(s)
    print(error.icmp, error.by, error.mtu)
    break
"""
"""The type, code, sender and MTU of the ICMP error that a datagram of this size brings."""


@pytest.mark.parametrize("node", [C, PYTHON])
def test_a_narrow_path_to_one_peer_is_told_to_the_sender_with_its_mtu(lab: UdpLab, node: str) -> None:
    number = node[-1]
    target = lab.addresses["pod3-1"]
    lab.shell(node, "ip route add 10.99.0.3/32 dev eth0 mtu 1300")
    try:
        size = 1300 - 28 - 28  # both headers outside, both inside
        assert lab.python(f"pod{number}-1", BOUNCE, target, size + 1) == f"(3, 4) {target} 1272\n"
        # just what fits arrives: nobody listens there, and its kernel says so
        assert lab.python(f"pod{number}-1", BOUNCE, target, size) == f"(3, 3) {target} 0\n"
    finally:
        lab.shell(node, "ip route delete 10.99.0.3/32 dev eth0")


@pytest.mark.parametrize("node", [C, PYTHON])
def test_a_subnet_that_nobody_holds_is_unreachable_and_says_so(lab: UdpLab, node: str) -> None:
    held = {lab.subnet(each) for each in lab.nodes}
    free = next(f"10.244.{n}.9" for n in range(100, 200) if f"10.244.{n}.0/24" not in held)
    before = lab.datapath(node).drops["no_route"]
    assert lab.python(f"pod{node[-1]}-1", BOUNCE, free, 10) == f"(3, 0) {free} 0\n"
    assert lab.datapath(node).drops["no_route"] > before


def test_ttl_is_counted_by_the_kernels_at_both_ends_alone(lab: UdpLab) -> None:
    listen = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7001)); s.settimeout(10)\n"
        "s.setsockopt(socket.IPPROTO_IP, 12, 1); print('ready', flush=True)\n"
        "print(s.recvmsg(99, 99)[1][0][2][0])  # by IP_RECVTTL, 12"
    )
    send = (
        "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64); s.sendto(b'x', (sys.argv[1], 7001))"
    )
    for source, target in (("pod1-1", "pod2-1"), ("pod2-1", "pod1-1")):
        with lab.serving(target, listen) as heard:
            lab.python(source, send, lab.addresses[target])
            assert heard.readline() == "62\n"


HOLD = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 8285)); print("ready", flush=True)
time.sleep(1000)
"""


def test_a_taken_port_is_named_with_its_owner_and_taken_back_when_it_is_free(lab: UdpLab) -> None:
    lab.held.lab.ask(Ask.STOP, C)
    with lab.serving(C, HOLD):
        lab.held.lab.ask(Ask.START, C)

        def is_named() -> bool:
            given = lab.held.lab.ask(Ask.STATUS).answers[C]
            problems = given.answer.status.problems if given.answer is not None else ()
            return any(
                problem.code == "port-taken" and re.search(r"8285 is taken by python\S* \(pid \d+\)", problem.text)
                for problem in problems
            )

        until(is_named)
    lab.shell(C, "ip address add 192.0.2.9/32 dev lo; ip address delete 192.0.2.9/32 dev lo")  # have it look now
    until(lab.works, patience=60)


DECOYS = """
ip tuntap add ovl.udp2 mode tun; ip tuntap add ovl.5 mode tun; ip link set ovl.5 up
ip route add 198.51.100.0/24 dev ovl.5 proto 111
ip route add 203.0.113.0/24 via 10.99.0.2 dev eth0
"""


def test_cleanup_takes_the_device_and_nothing_else(lab: UdpLab) -> None:
    node = "node3"
    look = "ip -o link | sed 's/qdisc.*//'; ip -o -4 address; ip -N route show table all"
    lab.shell(node, DECOYS)
    lab.held.lab.ask(Ask.STOP, node)
    before = set(lab.shell(node, look).splitlines())
    ours = {line for line in before if re.search(r"\bovl\.udp\b", line)}
    assert len(ours) >= 3, "stopping takes nothing away"
    lab.shell(node, f'cp "$OVERLAYD_SUBNET_FILE" /run/kept; {sys.executable} -m overlayd cleanup --iface eth0')
    assert set(lab.shell(node, look).splitlines()) == before - ours
    lab.shell(
        node,
        'cp /run/kept "$OVERLAYD_SUBNET_FILE"; ip link delete ovl.udp2; ip link delete ovl.5; '
        "ip route delete 203.0.113.0/24",
    )
    lab.held.lab.ask(Ask.START, node)
    until(lab.is_healthy)


def test_a_cluster_changes_to_another_backend_and_back_under_the_daemons(lab: UdpLab) -> None:
    def change(kind: str) -> None:
        config = json.dumps({"Network": lab.held.snapshot.spec.network, "Backend": {"Type": kind}})
        lab.shell(
            None, f"echo '{config}' > /run/config.json; {sys.executable} -m overlayd config set /run/config.json"
        )

    change("vxlan")
    until(lambda: all(lab.run(node, "ip", "link", "show", DEVICE).returncode for node in lab.nodes), patience=60)
    until(lab.works, patience=60)
    assert all(lab.answer(node).status.datapath is None for node in lab.nodes)
    change("udp")
    until(
        lambda: not any(lab.run(node, "ip", "link", "show", DEVICE).returncode for node in lab.nodes), patience=60
    )
    until(lab.works, patience=60)
    assert all(lab.run(node, "ip", "link", "show", "ovl.1").returncode for node in lab.nodes)
