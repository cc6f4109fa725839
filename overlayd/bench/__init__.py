"""`overlayd bench`: how fast packets cross, measured against other ways to carry them.

Each mode (host-gw, vxlan, udp in C, udp in Python, and `plain`, the yardstick) has a lab of its own, and the
modes take turns, round after round, so that whatever else the machine does meets them all alike.  Absolute
figures belong to one machine and one hour; what is judged are ratios between modes of the same round.

`model`, `schedule`, `judging`, `search`, `iperf`, `table` and `chart` are pure; the others run programs.  The
daemon never imports this package; it comes with the extra `lab`.
"""
