"""Training: the loop over phases, epochs and steps, losses, averaged weights, checkpoints, and recovery."""
