"""The error that ends a bench early."""

from __future__ import annotations


class BenchError(Exception):
    """An error for the user: what did not work, and what would."""
