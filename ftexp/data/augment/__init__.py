"""From pixels to what the network sees."""
