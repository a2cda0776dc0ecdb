"""What an invalidation would send: counted, listed and drawn."""
