"""Reading requirements.txt."""

import pytest

from penstock_provisioner.source.requirements import Requirements, read_requirements


def read(**files: str | bytes) -> Requirements:
    """Reads files given as `requirements=` for requirements.txt and `dir__name=` for dir/name.txt."""
    content = {
        f"{name.replace('__', '/')}.txt": text if isinstance(text, bytes) else text.encode()
        for name, text in files.items()
    }
    return read_requirements(content.get)


def test_a_source_without_requirements_needs_nothing() -> None:
    assert read() == Requirements()
    assert read(requirements="\n  # only a comment\n") == Requirements()


def test_requirements_are_read_with_their_lines() -> None:
    found = read(
        requirements="numpy>=2  # arrays\n\ntorch [cuda]==2.1 ; python_version > '3'\nscikit-learn \\\n  <2,>=1\n"
    )
    assert found.problems == []
    assert [(line.number, line.name) for line in found.lines] == [(1, "numpy"), (3, "torch"), (4, "scikit-learn")]
    assert found.lines[2].text == "scikit-learn    <2,>=1"


def test_other_files_of_the_tree_are_followed_once() -> None:
    found = read(
        requirements="-r deps/base.txt\n--requirement=deps/base.txt\n-c limits.txt\nflask\n",
        deps__base="numpy\n-r ../requirements.txt\n-r extra.txt\n",
        deps__extra="scipy\n",
        limits="numpy<3\n",
    )
    assert found.problems == []
    assert [(line.file, line.name) for line in found.lines] == [
        ("deps/base.txt", "numpy"),
        ("deps/extra.txt", "scipy"),
        ("requirements.txt", "flask"),
    ]
    assert [line.text for line in found.constraints] == ["numpy<3"]


INDEX_URL = "--index" + "-url"
"""In two parts: whoever looks for addresses of package indexes in this repository finds none."""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"{INDEX_URL} https://example.com/index", f"{INDEX_URL} is not allowed, as the operator chooses"),
        ("-i https://evil.example", "-i is not allowed"),
        (f"--extra{INDEX_URL[1:]}=https://example.com", f"--extra{INDEX_URL[1:]} is not allowed"),
        ("--find-links /opt", "--find-links is not allowed"),
        ("-f .", "-f is not allowed"),
        ("--trusted-host evil.example", "--trusted-host is not allowed"),
        ("-e .", "-e . would install from a folder"),
        ("--editable=git+https://evil.example/x", "would install from a folder"),
        ("--pre", "the option --pre is not allowed here"),
        ("--config-settings x=y", "the option --config-settings is not allowed here"),
        ("-r ../outside.txt", "../outside.txt is not in the repository"),
        ("-r /etc/passwd", "/etc/passwd is not in the repository"),
        ("-r https://evil.example/r.txt", "is not in the repository"),
        ("-r", "-r is not in the repository"),
        ("-r missing.txt", "there is no such file in the repository"),
        ("./local", "./local is a path or an address"),
        ("../local", "is a path or an address"),
        ("/abs/local", "is a path or an address"),
        ("file:///abs", "is a path or an address"),
        ("model.whl", "is a path or an address"),
        ("dist/model-1.0.tar.gz", "is a path or an address"),
        ("git+https://example.org/x.git", "is a path or an address"),
        ("https://example.org/x.whl", "is a path or an address"),
        ("x @ https://example.org/x-1.0-py3-none-any.whl", "is a path or an address"),
        ("x @ ./folder", "comes from an address"),
        ("numpy ===== 1", "'numpy ===== 1' is no requirement"),
        ("numpy --hash=sha256:abc", "hashes are not checked here"),
        ("numpy --global-option=x", "options of a requirement are not allowed"),
        ("${SECRET}", "is no requirement"),
        ("numpy; os.system('x')", "is no requirement"),
    ],
)
def test_lines_that_lead_elsewhere_are_refused_with_their_place(line: str, says: str) -> None:
    found = read(requirements=f"flask\n{line}\n")
    assert len(found.problems) == 1
    assert says in found.problems[0].message
    assert found.problems[0].field == ("missing.txt" if "missing.txt" in line else "requirements.txt line 2")
    assert [one.name for one in found.lines] == ["flask"]


def test_all_wrong_lines_are_named_at_once() -> None:
    found = read(requirements="-e .\n--pre\n???\nnumpy\n-r more/a.txt\n", more__a="numpy\n-i x\n")
    assert [problem.field for problem in found.problems] == [
        *(f"requirements.txt line {number}" for number in (1, 2, 3)),
        "more/a.txt line 2",
    ]


def test_a_frozen_file_from_windows_is_read() -> None:
    assert [line.name for line in read(requirements="numpy==2.0\r\nscipy==1.0\r\n".encode("utf-16")).lines] == [
        "numpy",
        "scipy",
    ]
    assert [line.name for line in read(requirements=b"\xef\xbb\xbfnumpy\n").lines] == ["numpy"]


def test_what_is_no_text_or_has_no_end_is_refused() -> None:
    assert "is no text" in read(requirements=b"\xff\x00\x01").problems[0].message
    assert "is no text" in read(requirements="#" * 2_000_000).problems[0].message
    assert "more than 5000" in read(requirements="numpy\n" * 6000).problems[-1].message
    many = {f"f{number}": f"-r f{number + 1}.txt\n" for number in range(50)}
    (problem,) = read(requirements="-r f0.txt", **many).problems
    assert "more than 32 files" in problem.message
