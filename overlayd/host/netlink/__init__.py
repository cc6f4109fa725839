"""Talking to the kernel's routing tables: rtnetlink over trio.

A request is packed, sent and answered in one place (`connection`).  What is asked and said often, one message
per peer, is packed and read by hand (`entries`, `facts`); what is rare goes through pyroute2's codecs
(`links`).  No process is forked, and the caller's own network namespace never changes (`netns`).
"""
