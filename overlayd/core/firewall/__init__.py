"""What overlayd asks of the packet filter, and what others' firewalls do to overlay packets."""
