"""What a caller selected: read, checked, counted and cut into batches."""
