"""The flow that only invalidates: for `prefect.yaml`, or to serve from here."""

from prefect_fused import invalidate_cache_flow

if __name__ == "__main__":
    invalidate_cache_flow.serve("served")
