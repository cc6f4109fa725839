"""The edge to the store: one protocol (overlayd.core.leases.store), several ways to keep it."""
