"""What a dbt build changed, and the maps that show it: from dbt's own files, without dbt."""
