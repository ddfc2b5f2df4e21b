from hypothesis import given
from hypothesis import strategies as st

from penstock_common.ids import ENDPOINT, encode, is_id, new_id, uuid7


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_a_uuid7_has_its_version_variant_and_time(unix_ms: int, random_bits: int) -> None:
    value = uuid7(unix_ms, random_bits)
    assert value >> 80 == unix_ms
    assert (value >> 76) & 0xF == 7
    assert (value >> 62) & 0b11 == 0b10


@given(st.integers(0, 2**48 - 2), st.integers(0, 2**74 - 1), st.integers(0, 2**74 - 1))
def test_ids_sort_by_time(unix_ms: int, one: int, other: int) -> None:
    assert encode(ENDPOINT, uuid7(unix_ms, one)) < encode(ENDPOINT, uuid7(unix_ms + 1, other))


def test_an_id_says_what_it_names() -> None:
    identifier = new_id(ENDPOINT)
    assert is_id(ENDPOINT, identifier)
    assert not is_id("rep", identifier)
    assert not is_id(ENDPOINT, identifier + "x")
    assert not is_id(ENDPOINT, "ep_" + "u" * 26)


def test_ids_do_not_repeat() -> None:
    assert len({new_id(ENDPOINT) for _ in range(1000)}) == 1000
