"""The overlay's network: addresses, config, view, and the seam to the backends."""
