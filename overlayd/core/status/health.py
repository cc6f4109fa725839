"""What machines ask of a daemon: is it alive, and is its node ready for pods?

*Alive* means that its loop goes round; who finds it not alive may start it again, which harms nothing.  *Ready*
means that a pod which starts now gets an address that is this node's to give, and a way to the others.  A peer
that can't be served makes a node degraded, but not unready: the pods of all other peers can be reached.

Both are judged at the instant of the question, as a lease runs out and a status grows old by themselves.
Sentences are for people; "" means that all is well.
"""

from __future__ import annotations

from overlayd.core.status.status import Status, why_run_out, why_stale


def why_not_alive(status: Status, now: float) -> str:
    return why_stale(status, now)


def why_not_ready(status: Status, now: float) -> str:
    if doubt := why_stale(status, now) or why_run_out(status, now):
        return doubt
    if status.lease is None or status.belief != "held":
        return f"this node's lease is {status.belief}"
    if not status.in_sync:
        return "the store has not been read yet"
    if not status.programmed:
        return "what this node itself needs is not all in the kernel"
    return ""
