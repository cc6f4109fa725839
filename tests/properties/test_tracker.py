"""The tracker agrees at every step with a comparison of everything with everything."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlayd.core.kernel.driver import is_named
from overlayd.core.kernel.items import Item, KernelState, Key
from overlayd.core.kernel.plan import diff
from overlayd.core.kernel.tracker import Tracker
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.desired import DesiredState
from support import overlay

PEERS = range(2, 6)
EVERYTHING = tuple(overlay.node(peers=PEERS).items)
PARTS = {number: KernelState.of(overlay.peer(number)) for number in PEERS}
BASES = (KernelState(), overlay.node())


class TrackerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tracker = Tracker()
        self.kernel: dict[Key, Item] = {}
        self.desired = DesiredState(KernelState())

    @rule(peers=st.sets(st.sampled_from(PEERS)), base=st.sampled_from(BASES), fresh=st.booleans())
    def want(self, peers: set[int], base: KernelState, fresh: bool) -> None:
        parts = {n: KernelState(PARTS[n].items) if fresh else PARTS[n] for n in peers}
        self.desired = DesiredState(base, {Subnet((overlay.subnet(n),)): items for n, items in parts.items()})
        self.tracker.want(self.desired)

    @rule(items=st.sets(st.sampled_from(EVERYTHING)))
    def see_all(self, items: set[Item]) -> None:
        self.kernel = {item.key: item for item in items}
        self.tracker.observed(KernelState.of(items))

    @rule(items=st.sets(st.sampled_from(EVERYTHING), max_size=4), there=st.booleans())
    def see_some(self, items: set[Item], there: bool) -> None:
        keys = frozenset(item.key for item in items)
        for item in EVERYTHING:
            if is_named(keys, item):
                if there:
                    self.kernel[item.key] = item
                else:
                    self.kernel.pop(item.key, None)
        seen = KernelState.of(item for item in self.kernel.values() if is_named(keys, item))
        self.tracker.observed(seen, keys)

    @rule(sweep=st.booleans())
    def carry_out(self, sweep: bool) -> None:
        plan = self.tracker.plan(sweep=sweep)
        actual = KernelState.of(self.kernel.values())
        assert set(plan) == set(diff(self.desired.kernel, actual, sweep=sweep))
        self.tracker.applied(plan)
        self.kernel = dict(self.tracker.actual)
        assert not self.tracker.differing & self.desired.kernel.by_key.keys()

    @invariant()
    def agrees(self) -> None:
        wanted = self.desired.kernel.by_key
        assert self.tracker.desired == dict(wanted)
        assert self.tracker.actual == self.kernel
        keys = wanted.keys() | self.kernel.keys()
        assert self.tracker.differing == {key for key in keys if wanted.get(key) != self.kernel.get(key)}


TestTracker = TrackerMachine.TestCase
