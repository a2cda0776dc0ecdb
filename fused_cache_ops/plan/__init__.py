"""The plan of an invalidation: what it would send, counted, listed and drawn."""
