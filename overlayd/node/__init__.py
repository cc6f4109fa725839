"""The runtime of one node: the daemon and the loops that it joins."""
