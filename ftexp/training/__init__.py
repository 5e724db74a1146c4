"""The loop: epochs, scores, checkpoints."""
