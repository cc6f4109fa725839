"""`overlayd bench`: measures how fast backends carry packets, relative to each other.

Each mode has a lab of its own: host-gw, vxlan, udp in C and in Python, and the baselines for them.  The modes
take turns, round after round, so that other load on the machine affects all of them.  Absolute figures belong to
one machine and one hour; only ratios between modes of the same round are judged.

`model`, `schedule`, `judging`, `search`, `iperf`, `table` and `chart` are pure; the others run programs.  The
daemon never imports this package; it comes with the extra `lab`.
"""
