"""How one response of a watch is read: which revision it vouches for, and when the watch is over."""

from __future__ import annotations

from typing import Any

import pytest

from overlayd.core.leases.store import Changes, Compacted, Deleted, Record, StoreError
from overlayd.store.etcd.keys import Keyspace
from overlayd.store.etcd.schema import rpc
from overlayd.store.etcd.watch import read_response

KEYS = Keyspace("/c")


def response(revision: int, *events: tuple[str, int], **fields: Any) -> Any:
    """A WatchResponse; an event is `(key, revision)` for a put."""
    made = rpc.WatchResponse(header=rpc.ResponseHeader(revision=revision), **fields)
    for key, changed in events:
        kv = made.events.add().kv
        kv.key, kv.value, kv.create_revision, kv.mod_revision = key.encode(), b"v", 2, changed
    return made


def read(made: Any, seen: int = 5) -> Changes:
    return read_response(KEYS, "a:1", made, seen)


def test_events_count_for_their_own_revision_and_not_for_the_header() -> None:
    """While etcd replays history, the header is already at its end."""
    replay = response(900, ("/c/config", 6), ("/c/overlay", 7), ("/c/subnets/a", 7))
    assert read(replay) == Changes(7, (Record("config", b"v", 2, 6, 0), Record("subnets/a", b"v", 2, 7, 0)))


def test_events_of_other_keys_alone_still_move_the_watch_on() -> None:
    assert read(response(9, ("/c/overlay", 9), ("/c/subnetsX", 9))) == Changes(9, ())


def test_a_delete_event_is_a_deletion() -> None:
    made = response(6, ("/c/subnets/a", 6))
    made.events[0].type = made.events[0].DELETE
    assert read(made) == Changes(6, (Deleted("subnets/a", 6),))


def test_a_response_without_events_vouches_for_nothing_new() -> None:
    """Older servers answer a progress request before they have sent what led up to that revision."""
    assert read(response(900)) == Changes(5, ())
    assert read(response(900, created=True)) == Changes(5, ())


@pytest.mark.parametrize(
    ("made", "kind", "words"),
    [
        (response(9, created=True, canceled=True, compact_revision=8), Compacted, "up to revision 8"),
        (response(9, canceled=True, cancel_reason="no leader"), StoreError, "ended the watch: no leader"),
        (response(9, canceled=True), StoreError, "ended the watch: it gave no reason"),
        (response(4, created=True), StoreError, "stands at revision 4, before revision 5"),
    ],
)
def test_a_watch_that_cannot_go_on_says_why(made: Any, kind: type[StoreError], words: str) -> None:
    with pytest.raises(StoreError, match=f"etcd at a:1 .*{words}") as raised:
        read(made)
    assert type(raised.value) is kind
