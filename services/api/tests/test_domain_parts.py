"""Cursors, prices, addresses, commands, rates, text and idempotency: the small pure parts."""

import json
import shlex
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_api.domain import cursors
from penstock_api.domain.connection import Addresses, example_command
from penstock_api.domain.idempotency import Attempt, KeptAnswer, check_same, request_digest
from penstock_api.domain.money import Money, hourly_price, missing_price
from penstock_api.domain.problems import Problem, invalid, invalid_field
from penstock_api.domain.rate import Rate, full, is_full, take
from penstock_api.domain.text import CUT_MARK, storable, tail
from penstock_common.contracts.endpoint import BodyParameter, GpuRequest, Resources, RouteSpec
from penstock_common.contracts.questions import FieldProblem, Price
from penstock_common.ids import ENDPOINT, WORKSPACE, new_id
from penstock_runtime.body import BodyTemplate

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


# --- cursors --------------------------------------------------------------------------------


def test_a_cursor_gives_back_what_it_was_made_from() -> None:
    identifier = new_id(ENDPOINT)

    assert cursors.read_id(ENDPOINT, cursors.after_id(ENDPOINT, identifier)) == identifier
    assert cursors.read_row("logs", cursors.after_row("logs", 2**63 - 1)) == 2**63 - 1


@given(st.text(max_size=200))
def test_any_other_text_is_refused_as_a_cursor(text: str) -> None:
    for read in (lambda: cursors.read_id(ENDPOINT, text), lambda: cursors.read_row("logs", text)):
        with pytest.raises(Problem) as refused:
            read()
        assert [error.field for error in refused.value.errors] == ["cursor"]


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(Problem):
        cursors.read_id(WORKSPACE, cursors.after_id(ENDPOINT, new_id(ENDPOINT)))
    with pytest.raises(Problem):
        cursors.read_row("events", cursors.after_row("logs", 1))
    with pytest.raises(Problem):
        cursors.read_id(ENDPOINT, cursors.after_row(ENDPOINT, 1))


# --- prices ---------------------------------------------------------------------------------


def prices(**micros: int) -> dict[str, Price]:
    names = {"any": "*", "cpu": "CPU", "a100": "A100"}
    return {
        names[name]: Price(gpu_type=names[name], micros_per_hour=price, currency="USD", valid_from=SINCE)
        for name, price in micros.items()
    }


@pytest.mark.parametrize(
    ("known", "gpu", "cores", "replicas", "expected"),
    [
        (prices(a100=100), GpuRequest(type="A100", count=3), 8, 2, 600),
        (prices(a100=100, any=7), GpuRequest(type="A100", count=1), 1, 1, 100),
        (prices(any=7), GpuRequest(type="A100", count=2), 1, 1, 14),
        (prices(cpu=5), None, 4, 3, 60),
        (prices(cpu=5), GpuRequest(type="A100"), 1, 1, None),
        (prices(any=7), None, 4, 1, None),
        (prices(), None, 4, 1, None),
    ],
)
def test_the_price_per_hour_counts_gpus_or_cores_and_replicas(
    known: dict[str, Price], gpu: GpuRequest | None, cores: int, replicas: int, expected: int | None
) -> None:
    price = hourly_price(known, gpu, Resources(cpu_cores=cores), replicas)

    assert price == (None if expected is None else Money(expected, "USD"))


def test_a_missing_price_names_the_field_and_the_mend() -> None:
    assert missing_price(None).field == "resources.cpu_cores"
    assert missing_price(GpuRequest(type="A100")).field == "gpu.type"
    assert "A100" in missing_price(GpuRequest(type="A100")).message


# --- addresses and commands -----------------------------------------------------------------

ADDRESSES = Addresses("http://127.0.0.1:8080", "localhost")


def test_an_endpoint_has_an_address_by_path_and_one_by_host_name() -> None:
    assert ADDRESSES.url("default", "iris") == "http://127.0.0.1:8080/e/default/iris"
    assert ADDRESSES.host_url("default", "iris") == "http://iris.default.localhost:8080"
    assert Addresses("https://gw.acme.example", "acme.example").host_url("w", "e") == "https://e.w.acme.example"


def route(path: str, verb: str = "POST", *body: BodyParameter) -> RouteSpec:
    return RouteSpec.model_validate({"path": path, "verb": verb, "file": "f", "function": "f", "body": body})


def test_the_example_asks_the_first_post_route_what_its_template_takes() -> None:
    template = (
        BodyParameter(name="features", type="list"),
        BodyParameter(name="text", type="str"),
        BodyParameter(name="count", type="int"),
        BodyParameter(name="share", type="float"),
        BodyParameter(name="flag", type="bool"),
        BodyParameter(name="extra", type="dict"),
        BodyParameter(name="top", type="int", optional=True, default_value="3"),
    )
    command = example_command("http://h/e/w/s", (route("/", "GET"), route("/predict", "POST", *template)), public=False)

    words = shlex.split(command)
    assert words[:2] == ["curl", "-sS"]
    assert words[-1] == "http://h/e/w/s/predict"
    assert '-H "Authorization: Bearer $PENSTOCK_API_KEY"' in command
    body = words[words.index("-d") + 1]
    assert "top" not in json.loads(body)
    assert len(BodyTemplate(template).arguments(body.encode())) == len(template)  # the runtime takes it


def test_the_example_of_a_public_endpoint_sends_no_key() -> None:
    command = example_command("http://h/e/w/s", (route("/", "GET"),), public=True)

    assert shlex.split(command) == ["curl", "-sS", "http://h/e/w/s/"]


# --- rates ----------------------------------------------------------------------------------


def test_a_burst_is_allowed_and_then_so_many_a_second() -> None:
    rate = Rate(per_s=2, burst=3)
    bucket, waits = full(rate, 0), []
    for at_s in (0, 0, 0, 0, 0.5, 0.5):
        bucket, wait_s = take(bucket, rate, at_s)
        waits.append(wait_s)

    assert waits == [0, 0, 0, 0.5, 0, 0.5]
    assert not is_full(bucket, rate, 0.5)
    assert is_full(bucket, rate, 2)


# --- text -----------------------------------------------------------------------------------


@given(st.text(max_size=50), st.integers(20, 30))
def test_text_is_made_fit_for_the_database(text: str, limit: int) -> None:
    clean = storable(text, limit)

    assert "\0" not in clean
    assert len(clean) <= limit
    assert (clean == text) == (len(text) <= limit and "\0" not in text)


def test_what_is_cut_says_so_and_a_log_keeps_its_end() -> None:
    assert storable("x" * 100, 30).endswith(CUT_MARK)
    assert tail("first\0last", 5) == "\N{REPLACEMENT CHARACTER}last"


# --- idempotency and problems ---------------------------------------------------------------


def test_requests_are_the_same_only_when_all_their_parts_are() -> None:
    digest = request_digest("POST", "/v1/a", "", b"{}")

    assert digest == request_digest("POST", "/v1/a", "", b"{}")
    others = [("POST", "/v1/a", "", b"{ }"), ("POST", "/v1/b", "", b"{}"), ("POST", "/v1/", "a", b"{}")]
    assert all(request_digest(*other) != digest for other in others)


def test_a_key_used_for_another_request_is_refused() -> None:
    kept = KeptAnswer("one", 201, "{}")
    check_same(Attempt("key_1", "k", "one"), kept)

    with pytest.raises(Problem) as refused:
        check_same(Attempt("key_1", "k", "other"), kept)

    assert (refused.value.kind.status, refused.value.code) == (422, "idempotency_mismatch")


def test_a_problem_with_one_field_says_it_in_its_detail() -> None:
    assert invalid_field("name", "is taken").detail == "name: is taken"
    assert invalid(*[FieldProblem(field="a", message="b")] * 2).detail == "2 fields are wrong; see errors."
