"""One call on its way: batches, workers, progress, checkpoint, verification."""
