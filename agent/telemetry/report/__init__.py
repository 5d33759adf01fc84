"""The report of finished runs: what they say together, as figures, a page, tables and JSON."""
