"""What a daemon says about itself: problems, status, health."""
