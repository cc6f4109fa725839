"""The checks of a lab: what an overlay must prove, pair by pair, whatever backend carries it.

`python -m overlayd.lab.suite` runs inside a lab, as its root: in the lab's own mount, PID and network
namespaces, where every node and pod is a named network namespace.  From the outside in:

    catalogue                which checks there are, and between whom
    contact, path, service, forward_drop, spoof, leave
                             what each of them asks, and what it makes of the answers
    ask, responder           the two ends of a question, and why there was no answer
    bench, stage             many pairs at once; the namespaces and addresses that they stand for
    exchange, icmp, forgery, bounce, traces
                             what is said and read, as pure functions
    outcome, page            what came of it, as a value and as a page to read
    sabotage, packet_filter, prove
                             for each check small faults that turn just it red, and the proof that they do

A check that could not run is never green: it is named as not applicable with its reason, or the whole run
ends with exit status 2.
"""
