"""The image, built and run without a container engine: the same steps, in a directory.

`dockerfile` reads what is to be done, `build` does it in directories with a plain Debian below, and `trial` starts
the daemon there, as the DaemonSet would.
"""
