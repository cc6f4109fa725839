"""The rules of overlayd, and nothing else.

Everything in here is a synchronous function of its arguments: no clock is read, no randomness drawn, no
file, socket or process touched.  The only imports are the standard library and msgspec.
"""
