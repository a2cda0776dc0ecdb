"""Which UDFs read which dataset: the map `fused-cache.toml`."""
