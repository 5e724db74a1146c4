"""Files that are written atomically and record their format version, and errors of the disk."""
