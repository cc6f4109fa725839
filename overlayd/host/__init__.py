"""The edge to the host: netlink, files, clock."""
