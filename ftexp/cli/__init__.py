"""The command line: arguments, messages, streams, the log."""
