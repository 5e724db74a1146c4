"""Files that are written whole or not at all, and know which version wrote them."""
