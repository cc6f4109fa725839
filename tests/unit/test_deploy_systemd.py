"""The unit and its environment file: what systemd thinks of them, and what the daemon does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overlayd.cli import build_parser
from overlayd.core.status.status import STALE_AFTER
from overlayd.node.reconciler import RESYNC

SYSTEMD = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = (SYSTEMD / "overlayd.service").read_text()


def setting(name: str) -> str:
    [value] = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def test_systemd_finds_no_fault_with_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / "overlayd.service"
    unit.write_text(UNIT.replace("/usr/bin/overlayd", sys.executable))  # what is not installed is a fault, too
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_it_may_do_what_a_network_daemon_must_and_little_else() -> None:
    assert setting("CapabilityBoundingSet") == "CAP_NET_ADMIN"
    assert setting("NoNewPrivileges") == "yes"
    assert setting("ProtectSystem") == "strict"
    assert {"AF_UNIX", "AF_NETLINK", "AF_INET", "AF_INET6"} == set(setting("RestrictAddressFamilies").split())
    assert setting("DeviceAllow") == "/dev/net/tun rw"
    for forbidden in (
        "ProtectKernelTunables=",
        "PrivateDevices=",
        "PrivateNetwork=",
    ):  # each would keep it from work
        assert not re.search(rf"^{forbidden}", UNIT, re.MULTILINE)


def test_the_watchdog_is_slower_than_the_daemons_own_pulse() -> None:
    assert setting("Type") == "notify"
    assert int(setting("WatchdogSec")) > STALE_AFTER * RESYNC


def test_directories_of_the_unit_are_the_daemons_defaults() -> None:
    args = build_parser("run").parse_args(["run"])
    assert args.run_dir == Path("/run", setting("RuntimeDirectory").split()[0])
    assert args.subnet_file.parent == Path("/run", setting("RuntimeDirectory").split()[1])
    assert args.state_dir == Path("/var/lib", setting("StateDirectory"))
    assert setting("RuntimeDirectoryPreserve") == "yes"  # a restart must not take subnet.env from the pods


def test_what_the_environment_file_shows_are_options_of_the_daemon(tmp_path: Path) -> None:
    shown = re.findall(r"^#?OVERLAYD_([A-Z_]+)=(.*)$", (SYSTEMD / "overlayd.env").read_text(), re.MULTILINE)
    assert len(shown) > 5
    arguments = ["run"]
    for name, value in shown:
        if name != "NETWORK_CONFIG":  # the file need not be there
            arguments += ["--" + name.lower().replace("_", "-"), value]
    build_parser("run").parse_args(arguments)
