"""Looking for leaks between the splits before training starts."""
