"""Whole daemons in virtual time: see docs/simulation.md."""
