"""The checks of a lab: what an overlay must prove, pair by pair, whatever backend carries it.

`python -m overlayd.lab.suite` runs inside a lab, as its root: in the lab's own mount, PID and network namespaces,
where every node and pod is a named network namespace.  The modules, highest first:

    catalogue                which checks there are, and between which pairs
    connectivity, path, service, forward_drop, spoof, leave
                             what each check sends, and how it judges the answers
    ask, responder           client and server of an exchange, and why there was no answer
    probing, topology        many pairs at once; their namespaces and addresses
    echo_protocol, icmp, icmp_errors, forged_packets, traces
                             messages and kernel tables, as pure functions
    outcome, render          the results, as values and as text
    sabotage, packet_filter, self_test
                             small faults that each fail one check, and the proof that they do

A check that could not run never counts as passed: it is named as not applicable with its reason, or the whole run
ends with exit status 2.
"""
