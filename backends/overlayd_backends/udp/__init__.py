"""The udp backend: packets cross the underlay through this process, one bare inner packet in each UDP datagram.

Policy is in `backend`; everything else is the packet path, as docs/datapath.md specifies it.  The rules
are pure: `packet` and `checksum` read, `table` knows who is where, `rules` judge, `segments`, `trains` and
`coalescing` cut and join, `icmp` tells senders.  `engine` puts them together; the C extension `_datapath` is a
second one that gives the same output for the same input, only faster.  `device` opens the TUN and the socket,
`python_loop` carries packets between them and an engine.
"""
