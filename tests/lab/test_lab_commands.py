"""`overlayd lab` as a user types it: root, and one without any privilege or home."""

from __future__ import annotations

import json

import pytest

from support.host import HostProcess


def test_a_lab_comes_up_can_be_entered_and_leaves_nothing(host: HostProcess) -> None:
    before = host.cleanup_state()
    made = host.overlayd("lab", "up", "--nodes", "2", "--json")
    assert made.status == 0, made.err
    during = host.cleanup_state()
    assert during != before
    assert {topic for topic in before if during[topic] != before[topic]} == {"processes", "abstract sockets"}

    view = json.loads(made.out)
    assert [(node["name"], node["verdict"], node["in_sync"]) for node in view["nodes"]] == [
        ("node1", "healthy", 1),
        ("node2", "healthy", 1),
    ]
    shown = host.overlayd("lab", "status")
    assert shown.status == 0, shown.out
    assert all(node["subnet"] in shown.out for node in view["nodes"])
    assert "problems" not in shown.out

    pod = view["nodes"][0]["pods"][0]
    routes = host.overlayd("lab", "exec", pod["name"], "--", "ip", "route")
    assert f"src {pod['address']}" in routes.out
    tried = host.overlayd("lab", "test", "pod-pod-tcp")
    assert tried.status == 0, tried.out + tried.err
    asked = host.overlayd("lab", "exec", "node2", "--", host.python, "-m", "overlayd", "status")
    assert asked.out.startswith("healthy"), asked

    gone = host.overlayd("lab", "down")
    assert gone.status == 0, gone.err
    assert host.cleanup_state() == before  # at once: `down` returns when it is done


def test_the_demo_shows_an_overlay_and_leaves_nothing(host: HostProcess) -> None:
    before = host.cleanup_state()
    shown = host.overlayd("lab", "demo", "--nodes", "2")
    assert shown.status == 0, shown.out + shown.err
    for text in ("pod-pod-tcp", "peers    1/1", "╭─ node2 ", "underlay 10.99.0.0/16"):
        assert text in shown.out
    assert host.cleanup_state() == before


def test_two_labs_stand_side_by_side(host: HostProcess) -> None:
    before = host.cleanup_state()
    for name in ("one", "other"):
        made = host.overlayd("lab", "up", "--nodes", "1", "--name", name)
        assert made.status == 0, made.err
    seen = [
        host.overlayd("lab", "exec", "--name", name, "node1", "--", "readlink", "/proc/self/ns/net").out
        for name in ("one", "other", "one")
    ]
    assert seen[0] == seen[2] != seen[1]
    unnamed = host.overlayd("lab", "status")
    assert unnamed.status == 1
    assert "up are: one, other" in unnamed.err
    assert host.overlayd("lab", "down", "--name", "one").status == 0
    assert host.overlayd("lab", "status", "--name", "other").status == 0
    assert host.overlayd("lab", "down", "--name", "other").status == 0
    assert host.cleanup_state() == before


def test_commands_without_a_lab_say_so(host: HostProcess) -> None:
    for arguments in (["down"], ["status"], ["exec", "node1", "--", "true"], ["logs", "node1"], ["test"]):
        done = host.overlayd("lab", *arguments)
        assert done.status == 1
        assert done.err == "overlayd lab: no lab named 'lab' is up: `overlayd lab up` makes one\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--nodes", "0"], "a lab can't have 0 nodes: from 1 to 250"),
        (["--pods", "254"], "room for 0 to 253"),
        (["--network", "10.98.0.0/15"], "overlaps 10.99.0.0/16, which is the lab's underlay"),
        (["--network", "nonsense"], "'nonsense'"),
        (["--network", "10.244.0.0/24", "--nodes", "4"], "has 3 subnets (/26), too few for 4 nodes"),
        (["--name", "../up"], "a lab can't be named '../up'"),
        (["--backend", "pigeon"], "'pigeon'"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(
    host: HostProcess, arguments: list[str], complaint: str
) -> None:
    before = host.cleanup_state()
    done = host.overlayd("lab", "up", *arguments)
    assert done.status == 2
    assert complaint in done.err
    assert "Traceback" not in done.err
    assert host.cleanup_state() == before


def test_a_lab_that_fails_says_who_is_to_blame_and_leaves_nothing(host: HostProcess) -> None:
    host.plant("/var/tmp/broken/ip", "#!/bin/sh\necho 'the kernel has no bridges today'\nexit 1\n")
    before = host.cleanup_state()
    done = host.overlayd("lab", "up", path="/var/tmp/broken")
    assert done.status == 1
    assert "overlayd lab: `ip -batch /run/lab/build/underlay.ip` failed" in done.err
    assert "  | the kernel has no bridges today" in done.err
    assert "Traceback" not in done.err
    assert host.cleanup_state() == before
