"""iptables by hand, in a namespace, in both its variants, and rules of others that must stay as they are."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Network

import pytest

from overlayd.core.firewall.iptables import ForwardRules, Variant, forward_rules
from overlayd.host.program import find_program

NETWORK = IPv4Network("10.244.0.0/16")
VARIANTS = list(Variant)
FOREIGN = (
    ":DOCKER-USER - [0:0]",
    "-A INPUT -i lo -j ACCEPT",
    "-A FORWARD -j DOCKER-USER",
    '-A FORWARD -s 10.244.0.0/16 -m comment --comment "overlayd 2" -j ACCEPT',
    "-A FORWARD -s 10.244.0.0/16 -m comment --comment overlayd -j DROP",
    "-A FORWARD -i eth9 -m comment --comment overlayd -j ACCEPT",
    "-A FORWARD -s 10.244.0.0/16 -j ACCEPT",
    "-A DOCKER-USER -s 10.244.0.0/16 -m comment --comment overlayd -j ACCEPT",
    "-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    '-A DOCKER-USER -m comment --comment "$(reboot) \\"; `x`" -j RETURN',
)
"""What others have put there, some of it almost like ours."""


def rules(variant: Variant) -> ForwardRules:
    return forward_rules(variant, NETWORK)


def require_iptables(variant: Variant) -> str:
    program = find_program(variant.command)
    if program is None:
        pytest.skip(f"needs {variant.command}: apt-get install iptables")
    return program


def iptables(netns: str, variant: Variant, arguments: str) -> str:
    """What it prints; it must succeed."""
    return _run(netns, require_iptables(variant), "--wait", *arguments.split())


def restore(netns: str, variant: Variant, *lines: str) -> None:
    """What the reload of a firewall does: filter is what these lines say, and nothing else."""
    script = "\n".join(["*filter", *lines, "COMMIT", ""])
    _run(netns, f"{require_iptables(variant)}-restore", "--wait", script=script)


def listed(netns: str, variant: Variant) -> list[str]:
    """Chains with their policies, then rules; all tables."""
    text = _run(netns, f"{require_iptables(variant)}-save")
    return [line.partition(" [")[0] for line in text.splitlines() if not line.startswith("#")]


def _run(netns: str, *command: str, script: str | None = None) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", netns, *command], input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
