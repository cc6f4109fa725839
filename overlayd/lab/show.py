"""The output of the lab's commands: live and in colour on a terminal, the same in plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from overlayd.lab.diagram import diagram
from overlayd.lab.lifeline import LaunchStep, Progress
from overlayd.lab.model import LabSpec
from overlayd.lab.overview import Overview

PLAIN_WIDTH = 120
"""Columns of the output where there is no terminal."""
VERDICT_STYLES = {"healthy": "green", "degraded": "yellow", "cannot tell": "red"}


def make_console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else PLAIN_WIDTH)


def title(name: str) -> str:
    """Name a lab in a sentence, without the default name."""
    return "lab" if name == LabSpec().name else f"lab {name}"


def describe(spec: LabSpec) -> str:
    """Describe a lab, as in `3 nodes, 1 pod each, vxlan over 10.244.0.0/16`."""
    nodes = "1 node" if spec.nodes == 1 else f"{spec.nodes} nodes"
    pods = {0: "no pods", 1: "1 pod each"}.get(spec.pods, f"{spec.pods} pods each")
    return f"{nodes}, {pods}, {spec.backend} over {spec.network}"


def describe_step(spec: LabSpec, step: LaunchStep, done: int) -> str:
    """Describe what a step builds, and its progress."""
    of = f"{done}/{spec.nodes}"
    match step:
        case LaunchStep.NETWORK:
            return f"a bridge, and {spec.nodes} network namespaces on it: the nodes"
        case LaunchStep.ETCD:
            return "the cluster's store, and the network config in it"
        case LaunchStep.DAEMONS:
            return f"{of} daemons have leased a subnet for their node"
        case LaunchStep.PODS:
            return f"{of} nodes have a bridge and their pods"
        case LaunchStep.OVERLAY:
            return f"{of} nodes are healthy, with all of their peers"


class ProgressBoard:
    """Progress of a launch: one line a step."""

    def __init__(self, spec: LabSpec, console: Console) -> None:
        self._spec = spec
        self._console = console
        self._start = time.monotonic()
        self._done: dict[LaunchStep, int] = {}
        self._finished: dict[LaunchStep, float] = {}
        self._spinner = Spinner("dots", style="cyan")

    @property
    def seconds(self) -> float:
        """Seconds since the launch began."""
        return time.monotonic() - self._start

    def note(self, progress: Progress) -> None:
        self._done[progress.step] = progress.done
        if progress.done == progress.of and progress.step not in self._finished:
            self._finished[progress.step] = self.seconds
            if not self._console.is_terminal:
                self._console.print(self._line(progress.step))

    def __rich__(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        current = next((step for step in LaunchStep if step not in self._finished), None)
        for step in LaunchStep:
            waiting: RenderableType = self._spinner if step in self._done or step is current else ""
            grid.add_row("", Text("✓", "green") if step in self._finished else waiting, self._line(step))
        return grid

    def _line(self, step: LaunchStep) -> Text:
        finished = self._finished.get(step)
        time_taken = f"{finished:5.1f} s  " if finished is not None else " " * 9
        text = describe_step(self._spec, step, self._done.get(step, 0))
        style = "" if step in self._done else "dim"
        return Text.assemble((f"{step.value:<9}", style), (time_taken, "dim"), (text, style))


@contextmanager
def progress_board(spec: LabSpec, console: Console) -> Generator[ProgressBoard]:
    """Show the progress of a launch while the block runs."""
    console.print(Text.assemble((title(spec.name), "bold"), f": {describe(spec)}"))
    board = ProgressBoard(spec, console)
    if not console.is_terminal:
        yield board
        return
    with Live(board, console=console, refresh_per_second=10):
        yield board


def print_diagram(view: Overview, console: Console) -> None:
    """Print the lab as a diagram."""
    for line in diagram(view, console.width):
        console.print(Text.assemble(*line), soft_wrap=True)


def status_table(view: Overview) -> RenderableType:
    """Lay out the lab as a table, and its problems below."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("NODE", "UNDERLAY", "DAEMON", "OVERLAY", "SUBNET", "PEERS", "PODS"):
        table.add_column(heading, no_wrap=heading != "PODS")
    for node in view.nodes:
        table.add_row(
            Text(node.name, "bold"),
            node.underlay,
            node.daemon,
            Text(node.verdict, VERDICT_STYLES[node.verdict]),
            node.subnet or "–",
            f"{node.in_sync}/{node.peers}" if node.peers is not None else "–",
            ", ".join(f"{pod.name} {pod.address or '–'}" for pod in node.pods) or "–",
        )
    etcd = ", ".join(f"{name} {state}" for name, state in view.etcd.items())
    head = Text.assemble((title(view.name), "bold"), f": {view.backend} over {view.network}, {etcd}")
    parts: list[RenderableType] = [head, "", table]
    if view.problems:
        parts += ["", Text("problems", "bold red")]
        parts += [Text(f"  {problem}") for problem in view.problems]
    return Group(*parts)
