"""Which samples train, validate and test; the test split, which is used once a run, and the count of its uses."""
