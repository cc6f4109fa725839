"""Fakes that pass the same contract tests as the real thing; the daemon never imports them."""
