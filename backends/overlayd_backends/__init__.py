"""Backends of overlayd: how packets cross the underlay."""
