"""Sending one call: batches, workers, progress, checkpoint, verification."""
