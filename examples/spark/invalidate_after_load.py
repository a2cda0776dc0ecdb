"""A job for spark-submit, or a task of a Databricks job: compare a table with what it was before the load, and invalidate the
tiles of what differs. Arguments: the table before, the table now (both Parquet), and the UDF."""

import sys

from pyspark.sql import SparkSession

from fused_cache_ops import invalidate_cache
from fused_cache_ops.spark import changed_tiles

before, after, udf = sys.argv[1:]
spark = SparkSession.builder.appName("invalidate-after-load").getOrCreate()
changed = changed_tiles(
    spark.read.parquet(before),
    spark.read.parquet(after),
    key="id",
    geometry_column="geometry",
    crs="EPSG:4326",
    zooms="8-16",
)
print(invalidate_cache(udf, tiles=changed))  # the token: FUSED_SERVICE_ACCOUNT_TOKEN of the driver
spark.stop()
