"""Which samples train, validate and test, and the test split that stays sealed."""
