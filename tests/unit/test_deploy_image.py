"""The Dockerfile as text, and what the trial of the image reads; tests/lab/test_image.py builds and runs it."""

from __future__ import annotations

from pathlib import Path

from imagecheck.trial import Rights
from overlayd import __version__

TOP = Path(__file__).parents[2]


def test_final_stage_installs_the_daemon_and_nothing_to_build_with() -> None:
    build, final = (TOP / "deploy" / "Dockerfile").read_text().split("\nFROM ")[-2:]
    for wanted in ("iproute2", "nftables", "iptables", "python3"):
        assert wanted in final
    for unwanted in ("gcc", "-dev", "pip", "[lab]"):
        assert unwanted not in final
    assert "[lab]" not in build
    assert f'org.opencontainers.image.version="{__version__}"' in final
    assert final.rstrip().endswith('CMD ["run"]')


def test_trial_takes_the_rights_from_the_manifest() -> None:
    rights = Rights.of(TOP / "deploy" / "kubernetes" / "base" / "daemonset.yaml")
    assert rights.capabilities == ("NET_ADMIN",)
    assert rights.host_paths["/var/lib/overlayd"] is True
    assert rights.host_paths["/etc/machine-id"] is False
