"""What ends a bench early."""

from __future__ import annotations


class BenchError(Exception):
    """A sentence for the user: what did not work, and what would."""
