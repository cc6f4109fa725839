"""Strict reading of hostile JSON, and redaction of secrets."""
