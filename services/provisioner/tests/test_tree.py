"""What a commit may hold."""

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_provisioner.source.problems import SourceProblem
from penstock_provisioner.source.tree import Entry, check_entries, check_links, parse_listing

OID = "a" * 40


def files(*paths: str, size: int = 10) -> list[Entry]:
    return [Entry("100644", OID, size, path) for path in paths]


def check(entries: list[Entry]) -> None:
    check_entries(entries, files_max=5, bytes_max=1000)


def test_the_output_of_git_is_read() -> None:
    listing = b"100644 blob %b      12\ta b/c.py\x00160000 commit %b       -\tlib\x00120000 blob %b       3\tl\xff\x00"
    entries = parse_listing(listing.replace(b"%b", OID.encode()))
    assert [(entry.mode, entry.size, entry.path) for entry in entries] == [
        ("100644", 12, "a b/c.py"),
        ("160000", 0, "lib"),
        ("120000", 3, "l\udcff"),
    ]


def test_plain_trees_pass() -> None:
    check(files("predict.py", "a/b/c.py", "..a/...b", ".gitignore", "a/b.py"))


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a//b",
        "a/./b",
        ".git/config",
        "a/.GIT/hooks/x",
        "x" * 300,
        "",
        "a/" * 600 + "b",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(SourceProblem, match="paths that cannot be written"):
        check(files("ok.py", path))


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("a/b/c", "a/b")])
def test_a_path_that_is_there_twice_is_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(SourceProblem, match="names one path twice"):
        check(files(*paths))


def test_trees_are_bounded() -> None:
    with pytest.raises(SourceProblem, match="holds 6 files, and at most 5"):
        check(files(*"abcdef"))
    with pytest.raises(SourceProblem, match="take 1 MB, and at most 0 MB"):
        check(files("a", size=2 * 1024**2 - 1))


@pytest.mark.parametrize(
    ("links", "bad"),
    [
        ({"a": "b"}, []),
        ({"a/b": "../c"}, []),
        ({"a": "."}, []),
        ({"a": "missing/one"}, []),
        ({"a": "/etc/passwd"}, ["a"]),
        ({"a": "../x"}, ["a"]),
        ({"a/b": "../../x"}, ["a/b"]),
        ({"a": ""}, ["a"]),
        ({"a": "a"}, ["a"]),
        ({"a": "b", "b": "a"}, ["a", "b"]),
        # Read as text this stays inside, but the kernel would follow the first link before it climbs.
        ({"deep/er/up": "../..", "deep/er/out": "up/../x"}, ["deep/er/out"]),
        ({"a": "b/../../x", "b": "c/d"}, []),
        ({"a": "b/../../../x", "b": "c/d"}, ["a"]),
    ],
)
def test_links_must_stay_inside_as_the_kernel_follows_them(links: dict[str, str], bad: list[str]) -> None:
    entries = [Entry("120000", OID, 1, path) for path in links]
    if not bad:
        check_links(entries, links)
        return
    with pytest.raises(SourceProblem) as caught:
        check_links(entries, links)
    assert all(repr(path) in caught.value.message for path in bad)


NAMES = st.sampled_from(["a", "b", "c", "..", "."])
TARGETS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d/a", "d/b", "d/e/c"]), TARGETS, max_size=5))
def test_no_accepted_link_leads_out_on_a_real_disk(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str]
) -> None:
    try:
        check_links([], links)
    except SourceProblem:
        return
    root = tmp_path_factory.mktemp("links") / "outer" / "root"
    for name in ("d/e", "c/b/a", "a", "b"):
        if not any(str(parent) in links for parent in (PurePosixPath(name), *PurePosixPath(name).parents)):
            (root / name).mkdir(parents=True, exist_ok=True)
    for name, target in links.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(root / name):
            (root / name).symlink_to(target)
    for name in links:
        resolved = Path(os.path.realpath(root / name))
        assert resolved.is_relative_to(root), (links, name)
