"""The three kinds of batches, and the cache of the activations of frozen blocks."""
