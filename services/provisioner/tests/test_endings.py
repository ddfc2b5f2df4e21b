"""The words in which a replica's end is told."""

import pytest

from penstock_provisioner import endings
from penstock_provisioner.domain import Exit


def test_the_runtime_explains_its_own_exits_while_loading() -> None:
    ending = endings.exited(
        Exit(3), was_ready=False, tail=["Traceback", "POST /predict needs predict, but it is gone."]
    )
    assert (ending.cause, ending.exit_code) == ("start_failed", 3)
    assert ending.detail == "POST /predict needs predict, but it is gone."
    assert ending.log_tail == "Traceback\nPOST /predict needs predict, but it is gone."


def test_an_exit_without_a_word_says_so() -> None:
    assert endings.exited(Exit(1), was_ready=True, tail=[]).detail == (
        "the model's process ended by itself with exit code 1; it printed nothing"
    )


@pytest.mark.parametrize(
    ("out_of_memory", "cause", "says"),
    [
        (True, "out_of_memory", "ran out of memory while it ran"),
        (False, "crashed", "though the kernel reports no lack of memory"),
        (None, "crashed", "not by Penstock;"),
    ],
)
def test_a_kill_is_called_lack_of_memory_only_where_the_kernel_says_so(
    out_of_memory: bool | None, cause: str, says: str
) -> None:
    ending = endings.exited(Exit(137, out_of_memory), was_ready=True, tail=["x"])
    assert ending.cause == cause
    assert says in ending.detail


def test_lack_of_memory_elsewhere_does_not_explain_a_plain_exit() -> None:
    assert endings.exited(Exit(1, out_of_memory=True), was_ready=True, tail=[]).cause == "crashed"


def test_no_exit_code_means_vanished() -> None:
    assert endings.exited(Exit(None), was_ready=True, tail=[]).cause == "vanished"


def test_an_unseen_clean_exit_is_a_stop_and_a_seen_one_a_crash() -> None:
    assert endings.exited_unseen(Exit(0), was_ready=True, tail=[]).phase == "stopped"
    assert endings.exited(Exit(0), was_ready=True, tail=[]).phase == "failed"


def test_details_are_bounded() -> None:
    assert len(endings.exited(Exit(1), was_ready=True, tail=["x" * 5000]).detail) == 1000
