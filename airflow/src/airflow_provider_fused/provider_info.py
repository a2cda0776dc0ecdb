"""Metadata for Airflow's provider discovery. It imports nothing from Airflow, which is still starting at that time."""

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
                    name: {
                        "label": label,
                        "description": description,
                        "schema": {"type": ["string", "null"]} | ({"format": "password"} if name in SECRET_FIELDS else {}),
                    }
                    for name, (label, description) in EXTRA_FIELDS.items()
                },
            }
        ],
        "extra-links": ["airflow_provider_fused.links.FusedWorkbenchLink"],
        "notifications": ["airflow_provider_fused.notifications.FusedInvalidateCacheNotifier"],
        "task-decorators": [
            {
                "name": "fused_invalidate_cache",
                "class-name": "airflow_provider_fused.decorators.fused_invalidate_cache_task",
            }
        ],
        "config": {
            "fused": {
                "description": "Defaults for every connection of type fused. A connection's own settings take precedence.",
                "options": {
                    name: {
                        "description": description,
                        "version_added": "0.1.0",
                        "type": kind,
                        "example": example,
                        "default": None,
                    }
                    for name, (kind, example, description) in CONFIG_OPTIONS.items()
                },
            }
        },
    }


FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "port", "extra"],
    "relabeling": {"host": "Base URL", "login": "Client id", "password": "Service account token"},
    "placeholders": {
        "host": "https://www.fused.io/server/v1",
        "login": "default: the preferred real-time instance, and that of the maps",
    },
}

EXTRA_FIELDS = {
    "timeout": ("Timeout (seconds)", "How long one request may take. Default: 30."),
    "deadline": ("Deadline (seconds)", "How long one invalidation may take, retries included. Default: 600."),
    "max_concurrency": ("Requests at once", "When tiles are sent one by one. Default: 16."),
    "max_requests_per_second": ("Requests per second", "The limit for one task. Default: as many as the service accepts."),
    "ca_bundle": ("Certificates to trust", "Path of a file or folder. Default: REQUESTS_CA_BUNDLE, otherwise requests' own."),
    "client_certificate": ("Client certificate", "Path of a PEM file with the certificate and its key."),
    "run_base_url": ("Base URL of shared UDFs", "For verification and refresh. Default: https://udf.ai for www.fused.io."),
    "passcode_secret": (
        "Passcode",
        "Passcode of a public canvas, for verification and refresh. Default: FUSED_CANVAS_PASSCODE.",
    ),
}
"""Fields stored in the connection's extra: name, label, help."""

SECRET_FIELDS = {"passcode_secret"}
"""Those that are hidden in forms and masked in logs, and that Airflow's configuration does not hold. Airflow masks a field of
the extra in its API and on its pages only if its name tells that it is secret."""

CLIENT_SETTINGS = {"passcode_secret": "passcode"}
"""The settings of a client that have another name here."""

CONFIG_OPTIONS = {
    "base_url": ("string", "https://fused.example.com/server/v1", "Address of the deployment."),
    "timeout": ("float", "30", "Seconds that one request may take."),
    "deadline": ("float", "600", "Seconds that one invalidation may take, retries included."),
    "max_concurrency": ("integer", "16", "Requests at once when tiles are sent one by one."),
    "max_requests_per_second": ("float", "50", "The most requests per second for one task."),
    "ca_bundle": ("string", "/etc/ssl/certs/company.pem", "Certificates to trust: a file or a folder."),
    "client_certificate": ("string", "/etc/ssl/private/airflow.pem", "A PEM file with a client certificate and its key."),
    "run_base_url": ("string", "https://udf.ai", "Where shared UDFs run, for verification and refresh."),
}
"""Options of the section ``[fused]``: type, example, help."""
