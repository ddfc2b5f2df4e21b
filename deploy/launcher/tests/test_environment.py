from dataclasses import replace
from pathlib import Path

import pytest

from penstock_launcher.environment import SERVICES, Addresses, inherited, of_service, without_indexes
from penstock_launcher.layout import Layout
from penstock_launcher.state import State

LAYOUT = Layout(Path("/data"))
STATE = State(
    "gpu-1",
    external_database=False,
    ports={"gateway-http": 8080, "api-http": 8081, **{service: 20000 + i for i, service in enumerate(SERVICES)}},
    passwords={service: f"password-of-{service}" for service in SERVICES}
    | {"admin": "password-of-admin", "webhooks": "secret-of-webhooks"},
)
ADDRESSES = Addresses(
    "nats://127.0.0.1:4222", {service: f"database-of-{service}" for service in ("api", "scheduler", "billing")}
)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_finds_its_own_credentials_and_no_others(service: str) -> None:
    environment = of_service(service, inherited({}, LAYOUT), STATE, ADDRESSES)
    secrets = [value for value in environment.values() if "password-of" in value or "database-of" in value]
    assert secrets
    assert all(value.endswith(f"-of-{service}") for value in secrets)
    assert ("PENSTOCK_DATABASE_URL" in environment) == (service in ADDRESSES.databases)


def test_every_process_is_marked_with_the_data_directory_and_its_name() -> None:
    environment = of_service("billing", inherited({}, LAYOUT), STATE, ADDRESSES)
    assert environment["PENSTOCK_DATA_DIR"] == "/data"
    assert environment["PENSTOCK_PROCESS"] == "billing"


def test_only_what_the_platform_needs_is_taken_over_from_the_user() -> None:
    taken = inherited(
        {
            "PATH": "/bin",
            "https_proxy": "http://proxy",
            "UV_CACHE_DIR": "/cache",
            "PENSTOCK_LOG_LEVEL": "DEBUG",
            "AWS_SECRET_ACCESS_KEY": "no",
            "DATABASE_URL": "no",
            "PENSTOCK_API_KEY": "no",
            "PENSTOCK_HOME": "/no",
            "PENSTOCK_DATABASE_URL": "no",
            "PENSTOCK_NATS_PASSWORD": "no",
            "PENSTOCK_OPS_PORT": "1",
            "PENSTOCK_DATA_DIR": "/another",
        },
        LAYOUT,
    )
    assert taken == {
        "PATH": "/bin",
        "https_proxy": "http://proxy",
        "UV_CACHE_DIR": "/cache",
        "PENSTOCK_LOG_LEVEL": "DEBUG",
        "PENSTOCK_DATA_DIR": "/data",
        "PYTHONUNBUFFERED": "1",
    }


def test_addresses_of_package_indexes_which_may_hold_passwords_reach_the_provisioner_only() -> None:
    indexes = {"UV_INDEX_URL": "https://user:secret@index.test", "PIP_EXTRA_INDEX_URL": "https://user:secret@pip.test"}
    base = inherited({"PATH": "/bin", **indexes}, LAYOUT)
    holders = [service for service in SERVICES if indexes.keys() & of_service(service, base, STATE, ADDRESSES).keys()]
    assert holders == ["provisioner"]
    assert of_service("provisioner", base, STATE, ADDRESSES).items() >= indexes.items()
    assert without_indexes(base) == inherited({"PATH": "/bin"}, LAYOUT)


def test_what_a_person_set_wins_over_the_default_for_one_machine() -> None:
    base = inherited({"PENSTOCK_ALLOW_LOCAL_SOURCES": "false"}, LAYOUT)
    chosen = of_service("provisioner", base, STATE, ADDRESSES)
    unchosen = of_service("provisioner", inherited({}, LAYOUT), STATE, ADDRESSES)
    assert (chosen["PENSTOCK_ALLOW_LOCAL_SOURCES"], unchosen["PENSTOCK_ALLOW_LOCAL_SOURCES"]) == ("false", "true")


def test_options_reach_the_services_they_are_for() -> None:
    chosen = replace(STATE, simulate_gpus="RTX 4090=4", otlp_endpoint="http://collector:4318")
    environments = {service: of_service(service, inherited({}, LAYOUT), chosen, ADDRESSES) for service in SERVICES}
    assert environments["provisioner"]["PENSTOCK_SIMULATE_GPUS"] == "RTX 4090=4"
    assert environments["provisioner"]["PENSTOCK_HOST_ID"] == "gpu-1"
    assert environments["provisioner"]["PENSTOCK_STOP_REPLICAS_ON_EXIT"] == "true"
    assert environments["api"]["PENSTOCK_API_PORT"] == "8081"
    assert environments["api"]["PENSTOCK_GATEWAY_URL"] == "http://127.0.0.1:8080"
    assert environments["gateway"]["PENSTOCK_GATEWAY_PORT"] == "8080"
    assert {environment["PENSTOCK_OTLP_ENDPOINT"] for environment in environments.values()} == {"http://collector:4318"}
    assert len({environment["PENSTOCK_OPS_PORT"] for environment in environments.values()}) == len(SERVICES)
