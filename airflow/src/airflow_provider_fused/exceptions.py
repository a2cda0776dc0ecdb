"""Airflow exceptions of this provider."""

from __future__ import annotations

from airflow_provider_fused._compat import AirflowException


class FusedUnavailableError(AirflowException):
    """Fused could not be reached, was busy, or failed temporarily. The task's ``retries`` apply.

    Permanent errors (an invalid token, an unknown UDF, an unreadable selection) raise ``AirflowFailException`` instead, which
    fails the task without retries.
    """
