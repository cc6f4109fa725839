"""The recipe of docs/security.md against a real etcd: whole daemons and operators do all that they do with just
the rights that it gives, and each right is needed."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from overlayd.cli import main
from overlayd.core.leases.keeper.transactions import release
from overlayd.core.leases.store import CONFIG, FROZEN, HELD, SUBNETS, Put, Store, StoreRefused, Transaction
from overlayd.core.status.status import Status, Verdict
from overlayd.store.etcd import Access, Login, open_etcd
from overlayd.testing.simulation.host import SimulatedHost
from support.cluster import subnet_of
from support.etcd import Etcd

PREFIX = "/coreos.com/network"
PATIENCE = 30.0
OPERATOR, NODE = "netadmin", "overlayd"


def recipe() -> list[list[str]]:
    """The commands of the page, in their order; what a terminal asks for is given at once."""
    page = (Path(__file__).parents[2] / "docs/security.md").read_text()
    commands = [line.split() for line in re.findall(r"^    etcdctl (.*)$", page, re.MULTILINE)]
    return [
        [*command, f"--new-user-password={password_of(command[2])}"] if command[:2] == ["user", "add"] else command
        for command in commands
    ]


def password_of(user: str) -> str:
    return f"secret of {user}"


@pytest.fixture(scope="module")
def etcd() -> Generator[Etcd]:
    with Etcd("--bcrypt-cost=4") as etcd:
        trio.run(follow_recipe, etcd)
        yield etcd


async def follow_recipe(etcd: Etcd) -> None:
    for command in recipe():
        await etcd.ctl(*command)
    etcd.ctl_options = ["--user=root", f"--password={password_of('root')}"]


class Cluster:
    """Daemons on one etcd, and whoever looks after it."""

    def __init__(self, etcd: Etcd, home: Path, stack: AsyncExitStack, nursery: trio.Nursery) -> None:
        self.etcd = etcd
        self.home = home
        self._stack = stack
        self._nursery = nursery

    async def store(self, user: str) -> Store:
        access = Access(login=Login(user, self._password_file(user)))
        return await self._stack.enter_async_context(open_etcd([self.etcd.endpoint], PREFIX, access=access))

    def _password_file(self, user: str) -> Path:
        path = self.home / f"password of {user}"
        path.touch(mode=0o600)
        path.write_text(password_of(user))
        return path

    async def run(self, user: str, *arguments: str) -> int:
        """`overlayd …` as this user; its exit status."""
        who = ["--etcd-username", user, "--etcd-password-file", str(self._password_file(user))]
        command = [*arguments, "--etcd-endpoints", self.etcd.endpoint, *who]
        return await trio.to_thread.run_sync(main, command)

    async def start(self, number: int) -> SimulatedHost:
        node = SimulatedHost(number, await self.store(NODE), self.home, self._nursery)
        await self._nursery.start(node.run)
        return node


def status(node: SimulatedHost) -> Status:
    return node.answer().status


async def until(condition: Callable[[], bool], node: SimulatedHost) -> None:
    with trio.move_on_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - no bell rings for it
            await trio.sleep(0.05)
        return
    raise AssertionError(f"it did not come to pass; {status(node)}")


def is_healthy(node: SimulatedHost) -> bool:
    return node.answer().verdict is Verdict.HEALTHY


def is_reserved(node: SimulatedHost) -> bool:
    lease = status(node).lease
    return lease is not None and lease.until is None


def is_frozen_out(node: SimulatedHost) -> bool:
    return any(problem.code == "claims-frozen" for problem in status(node).problems)


async def test_daemons_and_operators_can_do_all_that_they_do(
    etcd: Etcd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "network.json"
    config.write_text('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}')
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        cluster = Cluster(etcd, tmp_path, stack, nursery)
        assert await cluster.run(NODE, "config", "set", str(config)) == 2, "a node is no operator"
        assert "lets this user not read and write there" in capsys.readouterr().err
        assert await cluster.run(OPERATOR, "config", "set", str(config)) == 0
        assert await cluster.run(NODE, "config", "show") == 0
        one, two = await cluster.start(1), await cluster.start(2)
        await until(lambda: is_healthy(one) and is_healthy(two) and len(status(one).peers) == 1, one)

        subnet = subnet_of(one)
        assert await cluster.run(OPERATOR, "leases", "reserve", subnet, "--node", "id1") == 0
        await until(lambda: is_reserved(one) and is_healthy(one), one)
        assert await cluster.run(OPERATOR, "leases", "release", subnet) == 0
        await until(lambda: not is_reserved(one) and is_healthy(one), one)

        assert await cluster.run(OPERATOR, "leases", "freeze", "--seconds", "600") == 0
        three = await cluster.start(3)
        await until(lambda: is_frozen_out(three), three)
        assert await cluster.run(OPERATOR, "leases", "thaw") == 0
        await until(lambda: is_healthy(three) and len(status(one).peers) == 2, three)

        lease = two.keeper.held
        assert lease is not None
        await (await cluster.store(NODE)).commit(release(lease))  # as `overlayd cleanup --release` does
        await until(lambda: is_healthy(two) and two.keeper.held not in (None, lease), two)  # it claims another
        assert not [status(node).problems for node in (one, two, three) if status(node).problems]
        nursery.cancel_scope.cancel()


async def put(store: Store, name: str) -> None:
    await store.commit(Transaction((), (Put(name, b"", 0),)))


async def test_a_node_can_do_nothing_else(etcd: Etcd, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        cluster = Cluster(etcd, tmp_path, stack, nursery)
        node = await cluster.store(NODE)
        for name in (CONFIG, FROZEN, "overlayd/other", "other"):
            with pytest.raises(StoreRefused):
                await put(node, name)
        for prefix in ("/coreos.com/network2", "/coreos.com", "/registry"):
            access = Access(login=Login(NODE, tmp_path / f"password of {NODE}"))
            async with open_etcd([etcd.endpoint], prefix, access=access) as elsewhere:
                with pytest.raises(StoreRefused):
                    await elsewhere.snapshot()


async def test_each_right_of_a_node_is_needed(etcd: Etcd, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        node = await Cluster(etcd, tmp_path, stack, nursery).store(NODE)
        needing: dict[str, Callable[[], Awaitable[object]]] = {
            f"{PREFIX}/": node.snapshot,
            f"{PREFIX}/{SUBNETS}": lambda: put(node, f"{SUBNETS}10.244.250.0-24"),
            f"{PREFIX}/{HELD}": lambda: put(node, f"{HELD}10.244.250.0-24"),
        }
        granted = [words for words in recipe() if words[:3] == ["role", "grant-permission", "overlay-node"]]
        assert [words[4] for words in granted] == list(needing)
        for words in granted:
            await needing[words[4]]()
            await etcd.ctl("role", "revoke-permission", "overlay-node", words[4], "--prefix")
            with pytest.raises(StoreRefused):
                await needing[words[4]]()
            await etcd.ctl(*words)
            await needing[words[4]]()
