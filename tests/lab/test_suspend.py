"""A daemon that slept past its lease, as on a suspended machine, never uses what another has by then."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from overlayd.lab.control import Ask
from overlayd.lab.launcher import launched
from overlayd.lab.model import LabSpec
from support.lab import require_namespaces, run_inside

PATIENCE = 60


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.2)


@pytest.mark.long
def test_a_daemon_that_slept_past_its_ttl_gives_up_what_another_has_now() -> None:
    require_namespaces()
    with launched(LabSpec(name=f"suspend-{os.getpid()}", nodes=2), lambda _: None) as held:

        def overlayd(node: str, *arguments: str) -> str:
            return run_inside(held, node, "overlayd", *arguments).stdout

        def leases() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads(overlayd("node2", "leases", "list", "--json"))["leases"]
            return found

        def status() -> dict[str, Any]:
            answer: dict[str, Any] = json.loads(overlayd("node1", "status", "--json"))
            return answer

        subnet = next(lease["subnet"] for lease in leases() if lease["node"] == "node1")
        held.lab.ask(Ask.PAUSE, "node1")
        until(lambda: all(lease["subnet"] != subnet for lease in leases()))
        run_inside(held, "node2", "overlayd", "leases", "reserve", subnet, "--node", "somebody")
        held.lab.ask(Ask.RESUME, "node1")
        until(lambda: status()["status"]["lease"] is not None and status()["status"]["lease"]["subnet"] != subnet)
        until(lambda: status()["status"]["belief"] == "held")
        assert [lease["node_id"] for lease in leases() if lease["subnet"] == subnet] == ["somebody"]
        problems = {problem["code"]: problem["text"] for problem in status()["status"]["problems"]}
        assert "cni0" in problems["old-addresses"], "its pods are still at the old addresses"
        env = run_inside(held, "node1", "cat", f"{held.snapshot.spec.all_nodes[0].subnet_file}").stdout
        assert subnet.removesuffix(".0/24") + "." not in env
