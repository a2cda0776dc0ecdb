"""The provider as Airflow sees it: discovery, the connection type, the hook."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest

from airflow_provider_fused.hooks import FusedHook
from airflow_provider_fused.provider_info import get_provider_info
from fused_cache_ops.emulator import Emulator
from fused_cache_ops.errors import ConfigurationError

pytestmark = pytest.mark.xdist_group("airflow")


def airflow_command(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments, "--output", "json"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def connect(monkeypatch: pytest.MonkeyPatch, value: str | dict[str, Any]) -> FusedHook:
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", value if isinstance(value, str) else json.dumps(value))
    return FusedHook()


def test_airflow_lists_the_provider_and_its_connection_type() -> None:
    assert "airflow-provider-fused" in airflow_command("providers", "list")
    said = airflow_command("providers", "hooks")
    hooks = json.loads(said[said.index('[{"') :])  # some versions print warnings first
    (ours,) = [hook for hook in hooks if hook["connection_type"] == "fused"]
    assert ours["class"] == "airflow_provider_fused.hooks.FusedHook"
    assert ours["conn_id_attribute_name"] == "fused_conn_id"


def test_the_provider_info_fits_airflows_schema() -> None:
    schema = json.loads(Path(airflow.__file__).with_name("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_the_connection_form_fits_airflows_schema() -> None:
    schema = json.loads(Path(airflow.__file__).with_name("provider.yaml.schema.json").read_text())
    jsonschema.validate(get_provider_info()["connection-types"], schema["properties"]["connection-types"])


def test_the_provider_info_imports_nothing_of_airflow() -> None:
    code = (
        "import sys; from airflow_provider_fused.provider_info import get_provider_info; get_provider_info();"
        "sys.exit(any(name.partition('.')[0] == 'airflow' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_form_before_airflow_3_2_says_the_same() -> None:
    behaviour = FusedHook.get_ui_field_behaviour()
    assert set(behaviour) == {"hidden_fields", "relabeling", "placeholders"}
    assert behaviour["relabeling"]["password"] == "Service account token"


@pytest.mark.parametrize(
    ("value", "base_url", "client_id"),
    [
        ({"password": "t"}, "https://www.fused.io/server/v1", None),
        ({"password": "t", "host": "https://fused.example.com", "login": "team"}, "https://fused.example.com", "team"),
        ({"password": "t", "host": "fused.example.com", "port": 8443}, "https://fused.example.com:8443", None),
        ({"password": "t", "host": "http://127.0.0.1", "port": 8771}, "http://127.0.0.1:8771", None),
        ({"password": "t", "host": "f.example.com/fused/v1", "port": 8443}, "https://f.example.com:8443/fused/v1", None),
        ({"password": "t", "host": "https://f.example.com:8443/v1", "port": 8443}, "https://f.example.com:8443/v1", None),
        ({"password": "t", "host": "127.0.0.1", "schema": "http", "port": 8771}, "http://127.0.0.1:8771", None),
        ("fused://team:t@fused.example.com", "https://fused.example.com", "team"),
        ("fused://:t@http%3A%2F%2F127.0.0.1%3A8000%2Fserver%2Fv1", "http://127.0.0.1:8000", None),
        ("fused://:t@", "https://www.fused.io/server/v1", None),
    ],
    ids=str,
)
def test_a_connection_becomes_a_client(
    monkeypatch: pytest.MonkeyPatch, value: Any, base_url: str, client_id: str | None
) -> None:
    value = value | {"conn_type": "fused"} if isinstance(value, dict) else value
    client = connect(monkeypatch, value).get_conn()
    assert client.base_url.removesuffix("/server/v1") == base_url.removesuffix("/server/v1")
    assert client.client_id == client_id


@pytest.mark.parametrize(
    "value",
    [
        {"conn_type": "fused", "password": "t", "extra": {"timeout": 5, "deadline": 60, "max_concurrency": 4}},
        {"conn_type": "fused", "password": "t", "extra": {"timeout": "5", "deadline": "60", "max_concurrency": "4"}},
        "fused://:t@/?timeout=5&deadline=60&max_concurrency=4",
    ],
)
def test_numbers_in_the_extra_may_be_text(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    client = connect(monkeypatch, value).get_conn()
    assert (client.timeout, client.deadline, client.max_concurrency) == (5, 60, 4)


def test_the_extra_reaches_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"max_requests_per_second": "2.5", "run_base_url": "https://run.example.com", "ca_bundle": "/ca.pem"}
    client = connect(monkeypatch, {"conn_type": "fused", "password": "t", "extra": extra}).get_conn()
    assert (client._service.limiter.rate, client.run_base_url) == (2.5, "https://run.example.com")
    assert client._service._certificates["ca_bundle"] == "/ca.pem"


def test_a_passcode_in_the_extra_reaches_the_client_and_airflow_masks_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    masked: list[str] = []
    monkeypatch.setattr("airflow_provider_fused.hooks.mask_secret", masked.append)
    monkeypatch.setenv("AIRFLOW__FUSED__PASSCODE", "from-the-configuration")
    fields: dict[str, Any] = {"conn_type": "fused", "password": "t"}
    passcode = connect(monkeypatch, fields | {"extra": {"passcode_secret": "0pen-s3same"}}).get_conn()._service._passcode
    assert passcode is not None
    assert passcode.reveal() == "0pen-s3same"
    assert masked == ["0pen-s3same"]
    assert connect(monkeypatch, fields).get_conn()._service._passcode is None


def test_the_forms_field_for_the_passcode_hides_it() -> None:
    (kind,) = get_provider_info()["connection-types"]
    hidden = {name for name, field in kind["conn-fields"].items() if field["schema"].get("format") == "password"}
    assert hidden == {"passcode_secret"}


def test_airflow_itself_redacts_the_passcode_by_its_name() -> None:
    try:
        from airflow.sdk._shared.secrets_masker import redact
    except ImportError:
        try:
            from airflow.sdk.execution_time.secrets_masker import redact
        except ImportError:
            from airflow.utils.log.secrets_masker import redact
    assert redact({"passcode_secret": "0pen-s3same"}, "extra") == {"passcode_secret": "***"}


@pytest.mark.parametrize(
    ("extra", "meant"), [({"dead_line": 5}, "deadline"), ({"passcode": "0pen-s3same"}, "passcode_secret")], ids=str
)
def test_a_misspelled_field_of_the_extra_is_refused_without_its_value(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], meant: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"Did you mean {meant}") as caught:
        connect(monkeypatch, {"conn_type": "fused", "password": "t", "extra": extra}).get_conn()
    assert "s3same" not in str(caught.value)


def test_two_ports_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="omit one"):
        connect(monkeypatch, {"conn_type": "fused", "password": "t", "host": "https://f.example.com:1", "port": 2}).get_conn()


def test_a_number_that_is_none_is_named_by_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = connect(monkeypatch, {"conn_type": "fused", "password": "t", "extra": {"deadline": "soon"}})
    with pytest.raises(ConfigurationError, match=r"Connection 'fused_default': Deadline \(seconds\) = 'soon'"):
        hook.get_conn()


def test_a_missing_token_is_named_by_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"'Service account token' \(password\)"):
        connect(monkeypatch, {"conn_type": "fused"}).get_conn()


def test_testing_a_connection_that_is_good(monkeypatch: pytest.MonkeyPatch, fused_emulator: Emulator) -> None:
    fields = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    assert connect(monkeypatch, fields).test_connection() == (True, "The token is valid for the environment team.")


def test_testing_a_connection_that_is_bad(monkeypatch: pytest.MonkeyPatch, fused_emulator: Emulator) -> None:
    fields = {"conn_type": "fused", "host": fused_emulator.base_url, "password": "wr0ng-t0ken"}
    good, message = connect(monkeypatch, fields).test_connection()
    assert not good
    assert "401" in message
    assert "wr0ng-t0ken" not in message


def test_airflow_deprecates_nothing_that_our_modules_use() -> None:
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as told:\n"
        "    warnings.simplefilter('always')\n"
        "    import airflow_provider_fused.decorators, airflow_provider_fused.hooks, airflow_provider_fused.links\n"
        "    import airflow_provider_fused.notifications, airflow_provider_fused.operators\n"
        "    airflow_provider_fused.operators.FusedInvalidateCacheOperator(task_id='t', udf='roads')\n"
        "ours = [str(each.message) for each in told if 'airflow_provider_fused' in each.filename]\n"
        "print('told:', ours)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "told: []" in done.stdout
