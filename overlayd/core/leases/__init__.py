"""Leases: the book of what the store holds, the keeper of our own, and the seam to the store."""
