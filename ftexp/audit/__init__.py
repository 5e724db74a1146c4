"""The audit: searches for leaks between the splits before training starts."""
