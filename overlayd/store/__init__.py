"""The edge to the store: one protocol (overlayd.core.store), several ways to keep it."""
