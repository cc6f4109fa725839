"""Runs `overlayd run …` as systemd and a kubelet would: gives it a notify socket, probes it, and prints each news.

A program of its own, to be started on a node of a lab: its arguments are the daemon's command.  Prints a line for
whatever the daemon tells the notify socket, and one whenever a page's answer changes; ends the daemon when its own
standard input closes.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import urllib.error
import urllib.request

PORT = 8286
PAGES = ("/healthz", "/readyz")
ROUND = 0.2
"""Seconds between two probes."""


def probe(page: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{page}", timeout=5) as answer:
            return f"{answer.status} {answer.read().decode()}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError:
        return "silence"


def say(*words: str) -> None:
    print(*(" | ".join(word.strip().splitlines()) for word in words), flush=True)


def main() -> int:
    name = f"overlayd-watched-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        environ = {**os.environ, "NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "1000000"}
        with subprocess.Popen(sys.argv[1:], env=environ, stderr=subprocess.DEVNULL) as daemon:
            heard = dict.fromkeys(PAGES, "silence")
            while True:
                ready, _, _ = select.select([systemd, sys.stdin], [], [], ROUND)
                if systemd in ready:
                    say("systemd", systemd.recv(4096).decode())
                if sys.stdin in ready:
                    daemon.terminate()
                    break
                for page in PAGES:
                    if (said := probe(page)) != heard[page]:
                        heard[page] = said
                        say(page, said)
            status = daemon.wait(30)
            while select.select([systemd], [], [], 0)[0]:
                say("systemd", systemd.recv(4096).decode())
            say("ended", str(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
