"""The lab: a whole cluster on one machine, its nodes and pods as network namespaces.

The daemon never imports this package; it comes with the extra `lab`.
"""
