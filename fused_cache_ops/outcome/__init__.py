"""Results as plain data, and the errors of calls that failed after a part was done."""
