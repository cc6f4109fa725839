"""LeaseKeeper: how a node gets its subnet in a key-value store and keeps it, as one pure step.

The story of a lease: ask the store for a lease of its own (a *grant*), see the config and all subnets at one
revision, choose a free subnet, and write its key in a transaction that compares what was seen.  From then on
the grant is kept alive, and the record is rewritten when this node's attributes change, never blindly: every
write compares the create revision and the grant of the key that it believes to be its own.

A reservation is a key on no grant, so it never expires and can't show whether its node lives.  Its node keeps a
second key beside it, the *hold*, on its grant; belief follows that one.

The belief ends before the store can end the grant: it counts from the moment *before* the grant or keepalive
was sent, and stops a margin short of the TTL that the answer promised.  Once it has ended, a keepalive alone does
not bring it back, as the store may have been restored from a backup meanwhile; writing the record again does.

One life of a daemon is an *incarnation*.  At its start it takes over what an earlier life of this node left.
Once it has held a subnet, a record under its own id that names another incarnation is another daemon's: that
conflict is named, and not fought.

A step takes one event and answers with the new state and at most one command; no second command is given until
the outcome of the first has come back as an event.  Time (seconds of CLOCK_BOOTTIME) and chance (a random number)
are arguments.  Each file has one reason to change:

- `state`: the nouns: what is seen, events, commands, phases, the state;
- `recognition`: what an event means for the state: whose a record is, whether we still hold it;
- `decisions`: what to do next, as a table of rules in the order of their priority;
- `transactions`: what is written, and what must hold for it;
- `claimer`: the step, and what the rest of the node sees of it.
"""
