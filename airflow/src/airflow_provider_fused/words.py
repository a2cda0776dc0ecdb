"""The core's messages in Airflow's spelling: settings are fields of the connection, and the next call is a retry."""

from __future__ import annotations

from airflow_provider_fused.provider_info import CLIENT_SETTINGS, EXTRA_FIELDS, FIELD_BEHAVIOUR

_OWN_FIELDS = {"token": "password", "base_url": "host", "client_id": "login"}
_EXTRA = {CLIENT_SETTINGS.get(name, name): name for name in EXTRA_FIELDS}


def in_airflows_words(message: str) -> str:
    """A message as the author of a DAG would put it."""
    from fused_cache_ops.integration import respelled, without_attributes

    told = without_attributes(message)
    if told != message and "The checkpoint records" not in told:
        told = f"{told} With a checkpoint, a retry sends only the rest."
    told = told.replace("run the same call again to send the rest", "a retry sends the rest")
    return respelled(told, _spelled)


def _spelled(name: str, value: str | None) -> str | None:
    if name in _OWN_FIELDS:
        field = _OWN_FIELDS[name]
        return f"the connection's {field} ('{FIELD_BEHAVIOUR['relabeling'][field]}')"
    if name in _EXTRA:
        return f"{_EXTRA[name]!r}{'' if value is None else f': {value}'} in the connection's extra"
    return None
