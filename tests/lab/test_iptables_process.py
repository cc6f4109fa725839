"""The daemon beside others' iptables on a node of a lab: what it adds, what it leaves alone, what it says."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from overlayd.core.firewall.iptables import Variant
from overlayd.lab.control import Ask
from overlayd.lab.launcher import HeldLab, launched
from overlayd.lab.model import LabSpec
from support.iptables import FOREIGN, VARIANTS, require_iptables, rules
from support.lab import require_namespaces, run_inside

NODE = "node2"
OURS = [f"-A FORWARD {rule}" for rule in rules(Variant.NFT).rules]
BOTH = "for variant in nft legacy; do"
RELOAD = "\n".join(["*filter", *FOREIGN, "COMMIT"])


@pytest.fixture(scope="module")
def lab() -> Generator[HeldLab]:
    """Two nodes; one has no daemon, but rules of others in both variants of iptables."""
    require_namespaces()
    for variant in VARIANTS:
        require_iptables(variant)
    with launched(LabSpec(name=f"iptables-{os.getpid()}", nodes=2, pods=0), lambda _: None) as held:
        held.lab.ask(Ask.STOP, NODE)
        out(held, f"{BOTH} iptables-$variant-restore <<'END'\n{RELOAD}\nEND\ndone")
        yield held


def out(lab: HeldLab, script: str) -> str:
    done = run_inside(lab, NODE, "sh", "-ec", script)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def saved(lab: HeldLab, variant: Variant) -> list[str]:
    """All tables of a variant, without remarks and counters."""
    text = out(lab, f"{variant.command}-save")
    return [line.partition(" [")[0] for line in text.splitlines() if not line.startswith("#")]


def with_daemon(script: str, start: str = "overlayd run") -> str:
    """A script that runs while the daemon does; `first VARIANT` tells whether our rules are first in it."""
    return f"""
        {start} --iface eth0 --identity volatile --node-name {NODE} 2>/dev/null & daemon=$!
        trap 'kill $daemon; wait $daemon' EXIT
        wait_until() {{ tries=150; until eval "$1" || [ $((tries -= 1)) = 0 ]; do sleep 0.1; done; eval "$1"; }}
        first() {{ iptables-$1 -S FORWARD 2>/dev/null | sed -n 2p | grep -qx -- '{OURS[0]}'; }}
        {script}
    """


def test_rules_come_first_survive_a_reload_and_go_without_a_trace(lab: HeldLab) -> None:
    before = {variant: saved(lab, variant) for variant in VARIANTS}
    out(
        lab,
        with_daemon(
            f"""
            wait_until 'overlayd status >/dev/null'
            {BOTH} first $variant; done
            {BOTH} iptables-$variant-restore <<'END'
{RELOAD}
END
            done
            {BOTH} wait_until "first $variant"; done
            overlayd status
            """
        ),
    )
    for variant in VARIANTS:
        place = before[variant].index("-A FORWARD -j DOCKER-USER")
        assert saved(lab, variant) == [*before[variant][:place], *OURS, *before[variant][place:]]
    told = out(lab, "overlayd cleanup")
    for variant in VARIANTS:
        assert f"removed {rules(variant)}\n" in told
        assert saved(lab, variant) == before[variant]


def test_a_daemon_that_may_not_ask_iptables_legacy_says_what_it_needs(lab: HeldLab) -> None:
    """As the DaemonSet's, which has no capability but CAP_NET_ADMIN."""
    told = out(
        lab,
        with_daemon(
            "wait_until 'overlayd status | grep -q CAP_NET_RAW'; overlayd status || true; first nft",
            "setpriv --bounding-set=-net_raw --inh-caps=-net_raw overlayd run",
        ),
    )
    assert "iptables-legacy is in use, and can't be listed" in told
    assert "Give overlayd the capability CAP_NET_RAW, too" in told
    done = run_inside(
        lab, NODE, "setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", "overlayd", "cleanup"
    )
    assert done.returncode == 1
    assert "rules of overlayd may be left there" in done.stderr
    assert "Traceback" not in done.stderr
    out(lab, "overlayd cleanup")
