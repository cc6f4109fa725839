"""Connects the lab's pods as a container runtime does: by the CNI plugins, with the daemon's configuration.

`python -m overlayd.lab.cni add|check|del POD`, on the pod's node.  The CNI specification 1.0.0, sections 2 and 3,
says what a runtime must do: each plugin of the list is a program that gets its part of the configuration and the
result of the one before it on standard input; for `del` they are called in reverse.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overlayd.core.publish.cni import FILE_NAME, NEEDED
from overlayd.lab.control import LabError
from overlayd.lab.model import LabNode, LabPod

PLUGIN_DIRS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
"""Where the plugins' own releases install them, and where Debian does."""
INTERFACE = "eth0"
COMMANDS = ("add", "check", "del")

Json = dict[str, Any]


class PluginError(Exception):
    """A plugin failed; the text names it and has its error message."""


@dataclass(frozen=True)
class Call:
    """One run of a plugin: its name, and what it is given on standard input."""

    plugin: str
    given: Json


def find_plugins() -> Path:
    """Find the directory of the CNI plugins.  Raises LabError."""
    for directory in PLUGIN_DIRS:
        if all(os.access(directory / name, os.X_OK) for name in NEEDED):
            return directory
    places = " or ".join(map(str, PLUGIN_DIRS))
    raise LabError(f"there are no CNI plugins in {places}: apt-get install containernetworking-plugins")


def calls(conflist: Json, command: str, result: Json | None, data_dir: Path) -> Generator[Call, Json | None]:
    """Yield the runs of one command.

    For `add`, send each run's result into the generator to get the next; `check` and `del` take the result of the
    `add` before them.  The plugins record the pods' addresses below `data_dir`.
    """
    plugins = conflist["plugins"]
    for plugin in reversed(plugins) if command == "del" else plugins:
        if (plugin["type"], command) == ("bandwidth", "check"):
            continue  # it panics for a pod without limits (seen with 1.1.1)
        given = {**plugin, "cniVersion": conflist["cniVersion"], "name": conflist["name"]}
        if "ipam" in given:
            given["ipam"] = {**given["ipam"], "dataDir": str(data_dir)}
        if result is not None:
            given["prevResult"] = result
        result = (yield Call(plugin["type"], given)) or result


def carry_out(pod: LabPod, command: str, plugin_dir: Path) -> Json | None:
    """Run a command for a pod whose namespace exists; its result, or None.

    Raises PluginError, and OSError where the configuration can't be read.
    """
    node = pod.node
    conflist: Json = json.loads((node.cni_dir / FILE_NAME).read_text())
    kept = node.home / f"{pod.name}.result.json"
    result: Json | None = json.loads(kept.read_text()) if command != "add" and kept.exists() else None
    steps = calls(conflist, command, result, node.home / "networks")
    with suppress(StopIteration):
        step = next(steps)
        while True:
            result = _run(step, pod, command, plugin_dir) or result
            step = steps.send(result)
    if command == "add":
        kept.write_text(json.dumps(result))
    elif command == "del":
        kept.unlink(missing_ok=True)
    return result


def _run(call: Call, pod: LabPod, command: str, plugin_dir: Path) -> Json | None:
    environment: Mapping[str, str] = {
        "PATH": os.environ.get("PATH", ""),
        "CNI_COMMAND": command.upper(),
        "CNI_CONTAINERID": pod.name,
        "CNI_NETNS": f"/run/netns/{pod.name}",
        "CNI_IFNAME": INTERFACE,
        "CNI_PATH": str(plugin_dir),
    }
    done = subprocess.run(
        [plugin_dir / call.plugin], input=json.dumps(call.given), env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise PluginError(f"{call.plugin} {command} for {pod.name}: {done.stdout.strip() or done.stderr.strip()}")
    answer: Json | None = json.loads(done.stdout) if done.stdout.strip() else None
    return answer


def parse_pod(name: str) -> LabPod:
    """Parse the name of a pod: `pod2-1` is the first one of the second node.  Raises ValueError."""
    node, _, number = name.removeprefix("pod").partition("-")
    return LabPod(LabNode(int(node)), int(number))


def main() -> int:
    command, name = sys.argv[1:]
    if command not in COMMANDS:
        print(f"{command!r} is not one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        result = carry_out(parse_pod(name), command, find_plugins())
    except (PluginError, LabError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if command == "add":
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
