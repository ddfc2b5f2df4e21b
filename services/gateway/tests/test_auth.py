"""Who may call."""

from datetime import UTC, datetime

import pytest

from penstock_gateway.auth import KeyTable, Verdict, bearer_key

from .plane import key_record

NOW_S = 1_800_000_000.0
KEY = b"Bearer psk_key"


def table() -> KeyTable:
    keys = KeyTable()
    keys.put(key_record("psk_key"))
    return keys


def verdict(keys: KeyTable, authorization: bytes | None, organization_id: str = "org_1") -> Verdict:
    return keys.check(authorization, organization_id, NOW_S)[0]


def test_a_key_with_the_scope_may_call_endpoints_of_its_organization() -> None:
    assert verdict(table(), KEY) is Verdict.ALLOWED


def test_no_key_and_a_wrong_key_are_told_apart() -> None:
    assert verdict(table(), None) is Verdict.MISSING
    assert verdict(table(), b"Bearer psk_other") is Verdict.UNKNOWN
    assert verdict(table(), b"Bearer other") is Verdict.INVALID


def test_a_key_of_another_organization_may_not_know_the_endpoint() -> None:
    assert verdict(table(), KEY, "org_2") is Verdict.OTHER_ORGANIZATION


def test_a_key_without_the_scope_is_known_but_not_enough() -> None:
    keys = KeyTable()
    keys.put(key_record("psk_key", scopes=("endpoints:read",)))
    assert verdict(keys, KEY) is Verdict.NO_SCOPE


def test_a_key_is_valid_until_it_expires_and_no_longer() -> None:
    keys = KeyTable()
    keys.put(key_record("psk_key", expires_at=datetime.fromtimestamp(NOW_S, UTC)))
    assert keys.check(KEY, "org_1", NOW_S - 0.001) == (Verdict.ALLOWED, NOW_S, "key_1")
    assert keys.check(KEY, "org_1", NOW_S)[0] is Verdict.INVALID


def test_a_revoked_key_is_refused_at_once() -> None:
    keys = table()
    keys.remove(key_record("psk_key").sha256)
    keys.remove(key_record("psk_unknown").sha256)
    assert verdict(keys, KEY) is Verdict.UNKNOWN
    assert keys.hashes() == set()


def test_a_changed_key_counts_as_it_is_now() -> None:
    keys = table()
    keys.put(key_record("psk_key", organization_id="org_2"))
    assert verdict(keys, KEY, "org_2") is Verdict.ALLOWED
    assert [record.organization_id for record in keys.records()] == ["org_2"]


@pytest.mark.parametrize("value", [b"Bearer psk_x", b"bearer psk_x", b"BEARER   psk_x"])
def test_the_scheme_is_read_without_regard_to_case(value: bytes) -> None:
    assert bearer_key(value) == b"psk_x"


@pytest.mark.parametrize(
    "value", [b"", b"psk_x", b"Basic psk_x", b"Bearer", b"Bearer x", b"Bearer\tpsk_x", b"Bearer psk_" + b"x" * 300]
)
def test_other_credentials_hold_no_penstock_key(value: bytes) -> None:
    assert bearer_key(value) is None
