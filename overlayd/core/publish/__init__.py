"""The files for CNI and container runtimes, as text."""
