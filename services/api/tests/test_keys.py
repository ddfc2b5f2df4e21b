"""The format of API keys."""

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_api.domain.keys import (
    KEY_LENGTH,
    RANDOM_VALUES,
    derived_value,
    is_key,
    key_text,
    sha256_of,
    shown_part,
)

KEY = key_text(123456789)


@given(st.integers(0, RANDOM_VALUES - 1))
def test_every_key_has_the_format_and_passes_its_own_checksum(value: int) -> None:
    text = key_text(value)

    assert len(text) == KEY_LENGTH == 40
    assert text.startswith("psk_")
    assert set(text[4:]) <= set(string.ascii_letters + string.digits)
    assert is_key(text)


@given(st.integers(0, RANDOM_VALUES - 1), st.integers(4, 39), st.sampled_from(string.ascii_letters + string.digits))
def test_one_wrong_character_is_found(value: int, place: int, character: str) -> None:
    text = key_text(value)
    wrong = text[:place] + character + text[place + 1 :]

    assert is_key(wrong) == (wrong == text)


@given(st.text(max_size=60))
def test_any_other_text_is_no_key(text: str) -> None:
    assert not is_key(text)


def test_a_key_carries_at_least_128_random_bits() -> None:
    assert RANDOM_VALUES > 2**128


@pytest.mark.parametrize("text", ["", "psk_", KEY[:-1], KEY + "a", "PSK_" + KEY[4:], KEY.replace("psk_", "psk-")])
def test_what_is_cut_off_or_changed_is_no_key(text: str) -> None:
    assert not is_key(text)


def test_what_is_stored_is_the_digest_of_the_whole_text() -> None:
    assert sha256_of(KEY) == hashlib.sha256(KEY.encode()).hexdigest()


def test_what_is_shown_is_only_the_beginning() -> None:
    assert shown_part(KEY) == KEY[:8]


def test_only_the_same_caller_derives_the_same_key_again() -> None:
    nonce = b"n" * 32

    assert derived_value(KEY, nonce) == derived_value(KEY, nonce)
    assert derived_value(KEY, nonce) != derived_value(key_text(1), nonce)
    assert derived_value(KEY, nonce) != derived_value(KEY, b"m" * 32)
    assert is_key(key_text(derived_value(KEY, nonce)))
