"""Kernel state as values, the plan that changes it, and the seam to the drivers."""
