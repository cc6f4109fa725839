"""Simulation of whole daemons in virtual time; see docs/simulation.md."""
