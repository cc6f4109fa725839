"""The checks of a lab: what an overlay must prove, pair by pair, whatever backend carries it.

`python -m overlayd.lab.suite` runs inside a lab, as its root: in the lab's own mount, PID and network
namespaces, where every node and pod is a named network namespace.  From the outside in:

    catalogue    which checks there are, between whom, and what each one asks
    bench        the namespaces at work: sockets inside them, many pairs at once, a limit on each
    responder    what answers inside a namespace: its own name, whom it saw, what it got
    ask          one question from one namespace to another, and why there was no answer
    exchange, icmp, bounce       the bytes of it, as pure functions
    outcome, matrix              what came of it, as a value and as a page to read
    sabotage     for each check a small fault that turns just that check red

A check that could not run is never green: it is named as not applicable with its reason, or the whole run
ends with exit status 2.
"""
