"""Decisions about this host: its underlay, preflight, stale addresses."""
