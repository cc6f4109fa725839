"""The image, built and run without a container engine or a registry.

`build` builds it with buildah on a plain Debian, and `trial` starts the daemon in it, as the DaemonSet would.
"""
