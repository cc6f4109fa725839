"""Our two rules in other people's iptables: written and listed by its own programs."""
