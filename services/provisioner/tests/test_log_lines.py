"""Output becomes lines."""

from hypothesis import given
from hypothesis import strategies as st

from penstock_provisioner.logs.lines import LINE_BYTES_MAX, cut, printable, tail
from penstock_provisioner.logs.rate import Allowance


def texts(data: bytes, *, final: bool = False) -> list[str]:
    return [piece.text(data) for piece in cut(data, final=final)[0]]


def test_lines_end_with_their_ends() -> None:
    data = b"one\ntwo\r\n\nrest"
    pieces, consumed = cut(data, final=False)
    assert [(piece.offset, piece.text(data)) for piece in pieces] == [(0, "one"), (4, "two"), (9, "")]
    assert consumed == 10


def test_the_rest_waits_for_its_end_unless_there_will_be_none() -> None:
    assert texts(b"half a line") == []
    assert texts(b"half a line", final=True) == ["half a line"]


def test_progress_bars_become_lines() -> None:
    assert texts(b"\r 10%\r 20%\rdone\n") == [" 10%", " 20%", "done"]
    # A return at the end may be half of a line end.
    assert cut(b"windows\r", final=False) == ([], 0)
    assert texts(b"windows\r\n") == ["windows"]


def test_long_lines_are_cut_between_characters() -> None:
    data = "é".encode() * LINE_BYTES_MAX
    pieces, consumed = cut(data, final=False)
    parts = [piece.text(data) for piece in pieces]
    assert all(len(part.encode()) <= LINE_BYTES_MAX and "\ufffd" not in part for part in parts)
    assert len(data) - consumed <= LINE_BYTES_MAX
    assert "".join([*parts, *texts(data[consumed:], final=True)]).encode() == data


def test_bytes_that_are_no_text_are_shown_and_move_no_cursor() -> None:
    assert printable(b"\x00\x07\x1b[2J\x1b[31mred\x1b[0m \xff tab\t \xc2\x9b") == (
        "\\x00\\x07\\x1b[2Jred \ufffd tab\t \\x9b"
    )
    assert printable("a\u202eb\u2028c".encode()) == "a\\u202eb\\u2028c"


def test_a_line_without_any_character_start_is_still_cut() -> None:
    pieces, _ = cut(b"\x80" * (LINE_BYTES_MAX + 10), final=True)
    assert sum(piece.size for piece in pieces) == LINE_BYTES_MAX + 10


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\r\n", "ü".encode(), b"\xff", b"x" * 9000]), max_size=40))
def test_however_output_arrives_the_same_lines_come_of_it(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    expected = [(piece.offset, piece.text(whole)) for piece in cut(whole, final=True)[0]]
    found: list[tuple[int, str]] = []
    start = 0
    for end in (*range(0, len(whole), 997), len(whole)):
        part = whole[start:end]
        pieces, consumed = cut(part, final=end == len(whole))
        found += [(start + piece.offset, piece.text(part)) for piece in pieces]
        start += consumed
    if any(len(line) > LINE_BYTES_MAX for line in whole.replace(b"\r", b"\n").split(b"\n")):
        # A line that is too long may be cut elsewhere.
        assert "".join(text for _, text in found) == "".join(text for _, text in expected)
    else:
        assert found == expected


def test_the_tail_is_bounded_in_every_way() -> None:
    data = b"first\n" + b"".join(b"line %d\n\n" % number for number in range(30)) + b"y" * 300
    lines = tail(data, lines_max=5, line_chars_max=20, chars_max=1000)
    assert lines == ["line 26", "line 27", "line 28", "line 29", "y" * 20]
    assert tail(data, lines_max=5, line_chars_max=20, chars_max=30) == ["line 29", "y" * 20]
    assert tail(b"", lines_max=5, line_chars_max=20, chars_max=30) == []


def test_an_allowance_lets_a_burst_pass_and_then_its_rate() -> None:
    allowance = Allowance.full(per_s=10, burst=3, now_s=0)
    assert [allowance.take(1) for _ in range(4)] == [True, True, True, False]
    allowance.fill(0.2)
    assert [allowance.take(1) for _ in range(3)] == [True, True, False]
    allowance.fill(99)
    assert [allowance.take(1) for _ in range(4)] == [True, True, True, False]


def test_long_lines_cost_more_but_never_too_much_to_pass() -> None:
    allowance = Allowance.full(per_s=1, burst=20, now_s=0)
    assert allowance.take(16 * 1024)
    assert not allowance.take(16 * 1024)
    assert Allowance.full(per_s=1, burst=2, now_s=0).take(16 * 1024)
