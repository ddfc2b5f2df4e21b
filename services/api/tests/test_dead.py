"""Dead letters: what is shown of them, and what is sent again."""

import json
from datetime import UTC, datetime

import pytest

from penstock_api.dead_letters import parse_headers
from penstock_api.domain.dead import StoredLetter, preview, resend
from penstock_api.domain.problems import Problem

HEADERS = {
    "ce-id": "evt_1",
    "ce-type": "events.api.endpoint.requested.v1",
    "traceparent": "00-1-2-01",
    "Nats-Msg-Id": "scheduler-api-endpoint:7",
    "Penstock-Dead-Subject": "events.api.endpoint.requested.v1",
    "Penstock-Dead-Consumer": "scheduler-api-endpoint",
    "Penstock-Dead-Error": "ValueError: x",
    "Penstock-Dead-Deliveries": "8",
}


def letter(headers: dict[str, str]) -> StoredLetter:
    return StoredLetter(3, datetime(2026, 1, 1, tzinfo=UTC), headers, b'{"version": 1}')


def test_a_letter_is_sent_again_as_it_was_under_a_new_id_for_deduplication() -> None:
    message = resend(letter(HEADERS))

    assert message.subject == "events.api.endpoint.requested.v1"
    assert message.payload == b'{"version": 1}'
    assert message.headers == {
        "ce-id": "evt_1",
        "ce-type": "events.api.endpoint.requested.v1",
        "traceparent": "00-1-2-01",
        "Nats-Msg-Id": "evt_1:retry:3",
    }


@pytest.mark.parametrize("missing", ["ce-id", "Penstock-Dead-Subject"])
def test_a_letter_that_does_not_say_what_it_was_cannot_be_sent(missing: str) -> None:
    with pytest.raises(Problem) as refused:
        resend(letter({name: value for name, value in HEADERS.items() if name != missing}))

    assert refused.value.kind.status == 409


def test_the_preview_hides_whatever_users_wrote_or_models_printed() -> None:
    payload = {
        "endpoint_id": "ep_1",
        "version": 4,
        "reason": "secret 1",
        "log_tail": "secret 2",
        "spec": {"source": {"uri": "https://secret3@h"}},
        "lines": [{"text": "secret 4"}],
        "phase": {"unexpected": "secret 5"},
    }

    shown = preview(json.dumps(payload).encode())

    assert json.loads(shown)["endpoint_id"] == "ep_1"
    assert json.loads(shown)["version"] == 4
    assert "secret" not in shown


@pytest.mark.parametrize("payload", [b"", b"\xff\x00", b"[" * 100_000, b"[1]", b'"x"'])
def test_what_is_no_message_is_only_measured(payload: bytes) -> None:
    assert str(len(payload)) in preview(payload)


def test_a_preview_is_short() -> None:
    assert len(preview(json.dumps({f"field_{n}": 1 for n in range(1000)}).encode())) == 500


def test_headers_are_read_as_utf8() -> None:
    block = "NATS/1.0\r\nPenstock-Dead-Error: ValueError: für ✓: x\r\nce-id: evt_1\r\n\r\n".encode()

    assert parse_headers(block) == {"Penstock-Dead-Error": "ValueError: für ✓: x", "ce-id": "evt_1"}
