"""The three ways from samples to batches, and the cache of frozen blocks."""
