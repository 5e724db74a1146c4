"""The head as a convex problem on the features of a frozen network: solved to the optimum, not searched."""
