"""The files that a run writes its weights into."""
