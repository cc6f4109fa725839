"""`overlayd run --listen` where the port is somebody else's: refused at the start, with who it is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from overlayd.host.netlink.netns import in_netns
from support.netns import netns


def test_a_port_that_somebody_has_is_refused_with_who_it_is(tmp_path: Path) -> None:
    with netns() as name, in_netns(name, lambda: socket.create_server(("127.0.0.1", 8286))):
        dirs = [f"--{kind}-dir={tmp_path / kind}" for kind in ("state", "run")]
        command = ["ip", "netns", "exec", name, sys.executable, "-m", "overlayd", "run", "--listen=8286", *dirs]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert said.startswith("overlayd run: --listen 127.0.0.1:8286 is not to be had: ")
    assert f"(pid {os.getpid()}) listens there" in said
    assert "Traceback" not in done.stderr
