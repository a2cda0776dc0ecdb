"""Apache Airflow provider for Fused: invalidate UDF caches right after a load.

Airflow imports this package while it is still starting, so nothing is imported here.
"""
