"""What a run and an evaluation write to their folder and to the terminal: tables, plots and messages."""
