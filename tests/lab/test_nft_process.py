"""The daemon and its nftables table on the nodes of a lab: what is there, what options change, what goes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator

import pytest

from overlayd.lab.control import Ask
from overlayd.lab.launcher import HeldLab, launched
from overlayd.lab.model import LabSpec
from support.lab import require_namespaces, run_inside
from support.nft import FOREIGN, require_nft

PATIENCE = 30
ASIDE = "node2"
"""The node whose own daemon is stopped, to run one with other options in its place."""


@pytest.fixture(scope="module")
def lab() -> Generator[HeldLab]:
    require_namespaces()
    require_nft()
    with launched(LabSpec(name=f"nft-{os.getpid()}", nodes=2, pods=0), lambda _: None) as held:
        yield held


@pytest.fixture(scope="module")
def aside(lab: HeldLab) -> str:
    lab.lab.ask(Ask.STOP, ASIDE)
    return ASIDE


def out(lab: HeldLab, node: str, script: str) -> str:
    done = run_inside(lab, node, "sh", "-ec", script)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def ruleset(lab: HeldLab, node: str) -> str:
    return out(lab, node, "nft --stateless list ruleset")


def with_daemon(options: str, script: str) -> str:
    """A script that runs while a daemon with these options does, once that is healthy."""
    return f"""
        overlayd run --iface eth0 --identity volatile --node-name {ASIDE} {options} 2>/dev/null & daemon=$!
        trap 'kill $daemon; wait $daemon' EXIT
        tries=100; until overlayd status >/dev/null || [ $((tries -= 1)) = 0 ]; do sleep 0.2; done
        {script}
    """


def test_sources_are_checked_by_default_and_a_flushed_table_comes_back(lab: HeldLab) -> None:
    assert "firewall sources checked\n" in out(lab, "node1", "overlayd status")
    before = ruleset(lab, "node1")
    assert "source_check" in before
    assert "ip_masq" not in before
    out(lab, "node1", "nft flush ruleset")
    until(lambda: sorted(ruleset(lab, "node1").splitlines()) == sorted(before.splitlines()))
    assert out(lab, "node1", "overlayd status").startswith("healthy\n")


def test_a_forged_packet_is_told_of_in_status(lab: HeldLab) -> None:
    send = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.99.0.66', 0)); "
        "s.sendto(bytes([8, 0, 0, 0, 0, 0, 1, 0]) + bytes(60), ('10.99.0.1', 8472))"
    )
    out(lab, "node2", f'ip address add 10.99.0.66/16 dev eth0; {sys.executable} -c "{send}"')
    out(lab, "node2", "ip address delete 10.99.0.66/16 dev eth0")
    out(lab, "node1", "ip address add 192.0.2.1/32 dev lo")  # so that the daemon looks again
    until(lambda: "\ndropped  1 unknown_sender\n" in out(lab, "node1", "overlayd status"))


def test_options_decide_what_is_in_the_table_and_others_keep_theirs(lab: HeldLab, aside: str) -> None:
    assert "source_check" in ruleset(lab, aside), "stopping takes nothing away"
    out(lab, aside, f"nft -f - <<'END'\n{FOREIGN}\nEND")

    seen = out(lab, aside, with_daemon("--source-check off", "overlayd status; nft list tables"))
    assert "firewall sources not checked: switched off by --source-check off\n" in seen
    assert "table inet overlayd\n" not in seen
    theirs = ruleset(lab, aside)

    seen = out(lab, aside, with_daemon("--ip-masq", "cat $OVERLAYD_SUBNET_FILE; overlayd status"))
    assert "FLANNEL_IPMASQ=true\n" in seen
    assert "firewall masquerading, sources checked\n" in seen
    assert "masquerade fully-random" in ruleset(lab, aside)

    assert "removed table inet overlayd\n" in out(lab, aside, "overlayd cleanup")
    assert ruleset(lab, aside) == theirs


def test_without_nft_what_is_asked_for_is_refused_at_start_and_what_is_not_is_told(
    lab: HeldLab, aside: str
) -> None:
    hidden = "mount --bind /dev/null $(command -v nft);"
    missing = "nft is not installed: it is in the package nftables"
    done = run_inside(lab, aside, "unshare", "-m", "sh", "-c", f"{hidden} overlayd run --iface eth0 --ip-masq")
    assert done.returncode == 2
    assert f"overlayd run: --ip-masq needs nft: {missing}\n" in done.stderr
    assert "Traceback" not in done.stderr
    script = with_daemon("", "overlayd status").replace("\n", "\n" + hidden, 1)
    done = run_inside(lab, aside, "unshare", "-m", "sh", "-ec", script)
    assert f"firewall sources not checked: {missing}\n" in done.stdout
    assert done.stdout.startswith("healthy\n")


def test_what_cleanup_can_not_do_it_says_in_a_sentence(lab: HeldLab, aside: str) -> None:
    out(lab, aside, "nft add table inet overlayd")
    done = run_inside(
        lab, aside, "unshare", "-m", "sh", "-c", "mount --bind /dev/null $(command -v nft); overlayd cleanup"
    )
    assert done.returncode == 1
    assert "the kernel refused to remove table inet overlayd" in done.stderr
    assert "nft is not installed" in done.stderr
    assert "Traceback" not in done.stderr
    done = run_inside(lab, aside, "unshare", "--user", "overlayd", "cleanup")
    assert done.returncode == 1
    assert "run this as root, or with CAP_NET_ADMIN" in done.stderr
    assert "Traceback" not in done.stderr
    out(lab, aside, "overlayd cleanup")
