"""The caller's selection: read, validated, counted and split into batches."""
