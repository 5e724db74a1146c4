"""From a file to pixels, once."""
