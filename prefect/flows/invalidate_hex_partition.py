"""Rewrite a partition of an H3 dataset, then invalidate the tiles of the cells that its files are named by."""

import os

from prefect import flow, task

from prefect_fused import FusedCredentials, invalidate_cache


@task
def load() -> str:
    return "date=2026-11-22"  # your load, such as fused.h3.partition, which returns the folder it has written


@flow
def invalidate_hex_partition() -> dict:
    return invalidate_cache(
        "parcels",
        credentials=FusedCredentials(),
        hex_dataset=os.environ["PARCELS_HEXES"],
        partition=load(),
        zooms="10-14",
        render_resolution="fused",
    )


if __name__ == "__main__":
    invalidate_hex_partition()
