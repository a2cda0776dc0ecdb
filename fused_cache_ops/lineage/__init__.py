"""Who calls whom, read from the code of UDFs, and what could keep a map stale."""
