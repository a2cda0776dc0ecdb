"""Apache Airflow provider: invalidate Fused UDF caches right after a load.

Airflow reads this package while it is still starting, so nothing is imported here.
"""
