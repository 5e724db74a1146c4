"""Decodes image files, caches the decoded images, and samples the batches of each epoch."""
