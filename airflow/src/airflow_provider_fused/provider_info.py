"""What Airflow's provider discovery reads. It imports nothing of Airflow, which is still starting at that time."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The provider's description, in the form of Airflow's ``provider_info.schema.json``."""
    from importlib.metadata import version

    return {
        "package-name": "airflow-provider-fused",
        "name": "Fused",
        "description": "Invalidate the caches of `Fused <https://www.fused.io/>`__ UDFs right after a load.",
        "versions": [version("airflow-provider-fused")],
        "connection-types": [
            {
                "connection-type": "fused",
                "hook-class-name": "airflow_provider_fused.hooks.FusedHook",
                "hook-name": "Fused",
                "ui-field-behaviour": FIELD_BEHAVIOUR,
                "conn-fields": {
                    name: {"label": label, "description": description, "schema": {"type": ["string", "null"]}}
                    for name, (label, description) in EXTRA_FIELDS.items()
                },
            }
        ],
    }


FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "port", "extra"],
    "relabeling": {"host": "Base URL", "login": "Client id", "password": "Service account token"},
    "placeholders": {
        "host": "https://www.fused.io/server/v1",
        "login": "empty: the service's preferred real-time instance",
    },
}

EXTRA_FIELDS = {
    "timeout": ("Time-out (seconds)", "How long to wait for the service, each time. Empty: 30."),
    "deadline": ("Deadline (seconds)", "How long one invalidation may take, retries included. Empty: 600."),
    "max_concurrency": ("Requests at once", "Where tiles go one by one. Empty: 16."),
    "max_requests_per_second": ("Requests a second", "At most, of one task. Empty: as many as the service takes."),
    "ca_bundle": ("Certificates to trust", "Path of a file or folder. Empty: what REQUESTS_CA_BUNDLE names, or requests' own."),
    "client_certificate": ("Client certificate", "Path of a PEM file with the certificate and its key."),
    "run_base_url": ("Base URL of shared UDFs", "To verify with. Empty: https://udf.ai for www.fused.io."),
}
"""Fields kept in the connection's extra: name, label, help."""
