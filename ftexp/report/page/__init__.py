"""``report.html``: one page about one run, which needs nothing but itself."""
