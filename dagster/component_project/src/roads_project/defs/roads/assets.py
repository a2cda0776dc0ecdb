import dagster as dg


@dg.asset(key_prefix="raw", partitions_def=dg.StaticPartitionsDefinition(["north", "south"]))
def roads() -> None: ...  # your load, of one region


@dg.asset(key_prefix="raw")
def bridges() -> None: ...  # your load
