"""One load, many maps: the file that says which UDFs show a dataset, and what is done with it."""
