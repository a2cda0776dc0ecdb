"""Failures in Airflow's terms."""

from __future__ import annotations

from airflow_provider_fused._compat import AirflowException


class FusedUnavailableError(AirflowException):
    """Fused could not be reached, was busy or failed in passing: the task's ``retries`` apply.

    What will not pass (a bad token, an unknown UDF, an unreadable selection) is an ``AirflowFailException`` instead,
    which ends the task at its first try.
    """
