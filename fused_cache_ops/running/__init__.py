"""Running the UDF again through its shared token: to verify what was invalidated, and to refresh it."""
