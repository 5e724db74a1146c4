"""What learns, how fast, and what stays exactly as it was."""
