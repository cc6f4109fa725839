"""What the daemon answers when asked about itself."""
