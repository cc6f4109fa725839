"""overlayd: every node leases a subnet, watches its peers' leases, and programs the kernel to reach them."""

__version__ = "0.1.0"
