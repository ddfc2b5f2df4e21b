"""Pinning and fetching repositories, well-meant and hostile ones."""

import asyncio
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock_common.contracts.endpoint import GitSource
from penstock_provisioner.files import tree_bytes
from penstock_provisioner.helpers import Helpers
from penstock_provisioner.source import extract as extract_module
from penstock_provisioner.source.fetch import SourceLimits, Sources
from penstock_provisioner.source.git import Git, GitLimits
from penstock_provisioner.source.problems import SourceProblem

from .conftest import MakeRepository

FILES = {"predict.py": "x = 1\n", "lib/util.py": "y = 2\n", "run.sh": "#!/bin/sh\n"}


@pytest.fixture
def make_sources(tmp_path: Path) -> Callable[..., Sources]:
    def make(*, name: str = "cache", timeout_s: float = 20, **limits: Any) -> Sources:
        values: dict[str, Any] = {
            "allow_local": True,
            "allow_private": True,
            "files_max": 1000,
            "bytes_max": 10 * 1024**2,
            "cache_bytes_max": 10**9,
            "timeout_s": timeout_s,
            "parallel": 2,
            **limits,
        }
        git_limits = GitLimits(bytes_max=values["bytes_max"], timeout_s=timeout_s)
        git = Git(Helpers({}), tmp_path / name / "git", git_limits)
        return Sources(git, tmp_path / name / "sources", SourceLimits(**values))

    return make


@pytest.fixture
def sources(make_sources: Callable[..., Sources]) -> Sources:
    return make_sources()


async def fetched(sources: Sources, repository: Any, ref: str = "main", target: Path | None = None) -> Path:
    """Pin a repository and copy what the ref names."""
    commit = await sources.pin(GitSource(uri=repository.uri, ref=ref))
    target = target or repository.path.parent / "copy"
    await sources.copy(repository.uri, ref, commit, target)
    return target


async def refusal(sources: Sources, repository: Any, ref: str = "main") -> SourceProblem:
    with pytest.raises(SourceProblem) as caught:
        await fetched(sources, repository, ref)
    return caught.value


async def test_a_commit_is_fetched_as_it_was_committed(sources: Sources, make_repository: MakeRepository) -> None:
    repository = make_repository(FILES)
    (repository.path / "run.sh").chmod(0o755)
    (repository.path / "predict.py").write_text("x = 2\r\n")
    (repository.path / ".gitattributes").write_text("*.py export-ignore ident text eol=lf filter=evil\n")
    os.symlink("lib/util.py", repository.path / "link.py")
    repository.git("config", "core.autocrlf", "false")
    repository.commit_all()
    (repository.path / "predict.py").write_text("not committed")
    target = await fetched(sources, repository)
    assert (target / "lib/util.py").read_text() == "y = 2\n"
    assert (target / "link.py").readlink() == Path("lib/util.py")
    assert stat.S_IMODE((target / "run.sh").stat().st_mode) == 0o755
    assert "not committed" not in (target / "predict.py").read_text()
    assert not (target / ".git").exists()


async def test_what_is_pinned_stays_while_the_branch_moves_on(
    sources: Sources, make_repository: MakeRepository, tmp_path: Path
) -> None:
    repository = make_repository(FILES)
    commit = await sources.pin(GitSource(uri=repository.uri, ref="main"))
    repository.commit({"predict.py": "x = 3\n"})
    assert await sources.pin(GitSource(uri=repository.uri, ref="main")) != commit
    await sources.copy(repository.uri, "main", commit, tmp_path / "old")
    assert (tmp_path / "old/predict.py").read_text() == "x = 1\n"


async def test_a_tree_is_fetched_once_and_kept_read_only(
    sources: Sources, make_repository: MakeRepository, tmp_path: Path
) -> None:
    repository = make_repository(FILES)
    commit = await sources.pin(GitSource(uri=repository.uri))
    await asyncio.gather(*(sources.copy(repository.uri, "HEAD", commit, tmp_path / f"copy-{n}") for n in range(5)))
    repository.path.rename(tmp_path / "elsewhere")
    async with sources.tree(repository.uri, "HEAD", commit) as tree:
        assert stat.S_IMODE(tree.stat().st_mode) == 0o555
        assert stat.S_IMODE((tree / "predict.py").stat().st_mode) == 0o444
    (tmp_path / "copy-1/predict.py").write_text("writable")
    await sources.copy(repository.uri, "HEAD", commit, tmp_path / "copy-1")
    assert (tmp_path / "copy-1/predict.py").read_text() == "x = 1\n"


async def test_refs_name_branches_tags_and_commits(sources: Sources, make_repository: MakeRepository) -> None:
    repository = make_repository(FILES)
    first = repository.git("rev-parse", "HEAD")
    repository.git("tag", "-a", "v1", "-m", "first")
    repository.git("branch", "feature/one")
    second = repository.commit({"a.py": ""})
    pins = {
        ref: await sources.pin(GitSource(uri=repository.uri, ref=ref)) for ref in ("v1", "feature/one", "HEAD", "main")
    }
    assert pins == {"v1": first, "feature/one": first, "HEAD": second, "main": second}
    for ref in ("v1", first):
        assert not ((await fetched(sources, repository, ref)) / "a.py").exists()


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("mian", "no branch or tag 'mian' (did you mean main?)"),
        ("v1.O", "no branch or tag 'v1.O' (did you mean v1.0?)"),
        ("zzz", "no branch or tag 'zzz'; it has main, v1.0"),
        ("abcdef1", "a commit has to be given in full"),
        ("0" * 40, f"the commit {'0' * 40} is not in the repository"),
    ],
)
async def test_a_ref_that_is_not_there_is_named_with_near_ones(
    sources: Sources, make_repository: MakeRepository, ref: str, says: str
) -> None:
    repository = make_repository(FILES)
    repository.git("tag", "v1.0")
    problem = await refusal(sources, repository, ref)
    assert problem.field == "source.ref"
    assert says in problem.message


async def test_a_tag_of_something_else_than_a_commit_is_refused(
    sources: Sources, make_repository: MakeRepository
) -> None:
    repository = make_repository(FILES)
    repository.git("tag", "odd", repository.git("rev-parse", "HEAD^{tree}"))
    assert "odd names no commit" in (await refusal(sources, repository, "odd")).message


async def test_an_empty_repository_and_a_folder_that_is_none_are_said(
    sources: Sources, make_repository: MakeRepository, tmp_path: Path
) -> None:
    assert "is empty: commit" in (await refusal(sources, make_repository())).message
    folder = tmp_path / "folder"
    folder.mkdir()
    for uri, says in ((str(folder), "is no git repository"), (str(folder / "no"), "is no directory on this host")):
        with pytest.raises(SourceProblem, match=says):
            await sources.pin(GitSource(uri=uri))


async def test_a_bundle_file_is_no_repository(sources: Sources, make_repository: MakeRepository) -> None:
    repository = make_repository(FILES)
    repository.git("bundle", "create", "all.bundle", "HEAD")
    with pytest.raises(SourceProblem, match="is no directory"):
        await sources.pin(GitSource(uri=f"{repository.uri}/all.bundle"))


async def test_a_repository_of_another_user_can_be_read_where_local_ones_may(
    sources: Sources, make_repository: MakeRepository
) -> None:
    repository = make_repository(FILES)
    if os.geteuid() == 0:
        for path in (repository.path, repository.path / ".git"):
            os.chown(path, 12345, 12345)
    assert (await fetched(sources, repository) / "predict.py").exists()


async def test_local_repositories_are_refused_where_not_allowed(
    make_sources: Callable[..., Sources], make_repository: MakeRepository, tmp_path: Path
) -> None:
    repository = make_repository(FILES)
    commit = repository.git("rev-parse", "HEAD")
    sources = make_sources(allow_local=False)
    assert "not allowed here" in (await refusal(sources, repository)).message
    with pytest.raises(SourceProblem, match="not allowed here"):
        await sources.copy(repository.uri, "main", commit, tmp_path / "copy")


async def test_links_out_of_the_tree_are_refused_and_named(sources: Sources, make_repository: MakeRepository) -> None:
    repository = make_repository(FILES)
    os.symlink("../../../../../../etc/passwd", repository.path / "secrets")
    os.symlink("/etc/ssh", repository.path / "lib/keys")
    os.symlink("lib", repository.path / "fine")
    repository.commit_all()
    problem = await refusal(sources, repository)
    assert problem.message == (
        "links in the repository lead out of it: 'lib/keys', 'secrets'; replace them by the files themselves"
    )


async def test_a_forged_tree_cannot_write_through_a_link(
    sources: Sources, make_repository: MakeRepository, tmp_path: Path
) -> None:
    repository = make_repository(FILES)
    outside = tmp_path / "outside"
    outside.mkdir()
    link = repository.git("hash-object", "-w", "--stdin", stdin=str(outside).encode())
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"evil")
    inner = repository.git("mktree", stdin=f"100644 blob {blob}\tx\n".encode())
    raw = b"120000 a\0" + bytes.fromhex(link) + b"40000 a\0" + bytes.fromhex(inner)
    tree = repository.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)
    repository.git("update-ref", "refs/heads/main", repository.git("commit-tree", tree, "-m", "forged"))
    assert (await refusal(sources, repository)).field == "source.uri"
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".git", ".GIT"])
async def test_a_forged_path_is_refused(sources: Sources, make_repository: MakeRepository, name: str) -> None:
    repository = make_repository(FILES)
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"evil")
    inner = repository.git("mktree", stdin=f"100644 blob {blob}\tx\n".encode())
    raw = f"40000 {name}\0".encode() + bytes.fromhex(inner)
    tree = repository.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)
    repository.git("update-ref", "refs/heads/main", repository.git("commit-tree", tree, "-m", "forged"))
    assert "paths that cannot be written" in (await refusal(sources, repository)).message


async def test_submodules_are_not_fetched(sources: Sources, make_repository: MakeRepository, tmp_path: Path) -> None:
    inner = make_repository({"secret.py": ""}, name="inner")
    repository = make_repository(FILES)
    repository.git("submodule", "--quiet", "add", inner.uri, "vendor/inner")
    repository.commit_all()
    target = await fetched(sources, repository)
    assert list((target / "vendor/inner").iterdir()) == []


async def test_hooks_and_settings_of_the_repository_do_nothing(
    sources: Sources, make_repository: MakeRepository, tmp_path: Path
) -> None:
    repository = make_repository({**FILES, ".gitattributes": "* filter=evil\n"})
    trap = tmp_path / "trapped"
    for hook in ("post-checkout", "pre-receive", "post-update", "reference-transaction", "post-merge"):
        path = repository.path / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {trap}\n")
        path.chmod(0o755)
    for key in ("uploadpack.packObjectsHook", "core.fsmonitor", "core.sshCommand", "core.gitProxy", "core.pager"):
        repository.git("config", key, f"touch {trap}")
    repository.git("config", "filter.evil.smudge", f"touch {trap}")
    await fetched(sources, repository)
    assert not trap.exists()


async def test_settings_of_the_operator_do_nothing(
    sources: Sources, make_repository: MakeRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    trap = tmp_path / "trapped"
    (home / ".gitconfig").write_text(f'[url "file:///nowhere"]\n insteadOf = /\n[core]\n fsmonitor = touch {trap}\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "url.file:///nowhere.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "/")
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {trap}")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    await fetched(sources, make_repository(FILES))
    assert not trap.exists()


@pytest.mark.parametrize("uri", ["ext::sh -c touch% /tmp/penstock-trap", "--upload-pack=touch /tmp/penstock-trap"])
async def test_other_transports_and_options_are_refused(sources: Sources, uri: str) -> None:
    with pytest.raises(SourceProblem, match="is no repository address"):
        await sources.pin(GitSource(uri=uri))
    assert "penstock-trap" not in os.listdir("/tmp")


async def test_a_ref_that_is_an_option_is_refused(sources: Sources, make_repository: MakeRepository) -> None:
    source = GitSource.model_construct(uri=make_repository(FILES).uri, ref="--upload-pack=x")
    with pytest.raises(SourceProblem, match="is no branch, tag or commit"):
        await sources.pin(source)


async def test_a_repository_that_is_too_large_is_refused_and_nothing_is_kept(
    make_sources: Callable[..., Sources], make_repository: MakeRepository, tmp_path: Path
) -> None:
    repository = make_repository({"weights.bin": os.urandom(3 * 1024**2)})
    sources = make_sources(bytes_max=1024**2)
    problem = await refusal(sources, repository)
    assert problem.message.startswith("the repository holds more than 1 MB: keep large files out of it")
    assert tree_bytes(tmp_path / "cache/sources") == 0


async def test_files_that_unpack_too_large_are_refused(
    make_sources: Callable[..., Sources], make_repository: MakeRepository
) -> None:
    # A few KB as git stores it: only the listing says how large it is.
    repository = make_repository({"zeros.bin": b"\0" * 30 * 1024**2})
    problem = await refusal(make_sources(), repository)
    assert "take 30 MB, and at most 10 MB are allowed" in problem.message


async def test_too_many_files_are_refused(
    make_sources: Callable[..., Sources], make_repository: MakeRepository
) -> None:
    repository = make_repository({f"f{number}": "" for number in range(30)})
    assert "holds 30 files, and at most 20" in (await refusal(make_sources(files_max=20), repository)).message


async def test_a_fetch_that_takes_too_long_is_ended(
    make_sources: Callable[..., Sources], make_repository: MakeRepository, tmp_path: Path
) -> None:
    slow = tmp_path / "bin/git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nsleep 600\n")
    slow.chmod(0o755)
    repository = make_repository(FILES)
    sources = make_sources(timeout_s=0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
        with pytest.raises(SourceProblem, match=r"takes? longer than 0\.3 s|took longer than 0\.3 s"):
            await sources.pin(GitSource(uri=repository.uri))


async def test_the_cache_is_bounded_but_what_is_in_use_stays(
    make_sources: Callable[..., Sources], make_repository: MakeRepository, tmp_path: Path
) -> None:
    sources = make_sources(cache_bytes_max=2500)
    repositories = [make_repository({"data": "x" * 1000}, name=f"r{number}") for number in range(4)]
    commits = [await sources.pin(GitSource(uri=repository.uri)) for repository in repositories]
    async with sources.tree(repositories[0].uri, "HEAD", commits[0]) as first:
        for repository, commit in list(zip(repositories, commits, strict=True))[1:]:
            await sources.copy(repository.uri, "HEAD", commit, tmp_path / "copy")
        assert (first / "data").exists()
        assert len(os.listdir(tmp_path / "cache/sources")) == 2
    restarted = make_sources(cache_bytes_max=2500)
    await restarted.copy(repositories[3].uri, "HEAD", commits[3], tmp_path / "copy")


async def test_an_entry_that_a_start_has_just_chosen_is_not_removed_under_it(
    make_sources: Callable[..., Sources],
    make_repository: MakeRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = make_sources(cache_bytes_max=1500)
    old, new = (make_repository({"data": "x" * 1000}, name=name) for name in ("old", "new"))
    old_commit, new_commit = (repository.git("rev-parse", "HEAD") for repository in (old, new))
    async with sources.tree(old.uri, "HEAD", old_commit):
        pass
    loop, removing, chosen, rename = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), Path.rename

    def slow_rename(path: Path, target: Path) -> Path:
        if threading.current_thread() is not threading.main_thread():
            loop.call_soon_threadsafe(removing.set)
            chosen.wait(10)
        return rename(path, target)

    async def fetch_the_new_one() -> None:
        async with sources.tree(new.uri, "HEAD", new_commit):
            removing.set()

    monkeypatch.setattr(Path, "rename", slow_rename)
    fetching = asyncio.create_task(fetch_the_new_one())
    await removing.wait()
    async with sources.tree(old.uri, "HEAD", old_commit) as tree:
        chosen.set()
        await fetching
        assert (tree / "data").read_text() == "x" * 1000


async def test_a_cache_with_a_damaged_entry_is_still_tidied(
    make_sources: Callable[..., Sources], make_repository: MakeRepository, tmp_path: Path
) -> None:
    sources = make_sources()
    for name in ("a", "b"):
        await fetched(sources, make_repository(FILES, name=name))
        (first, *_) = (tmp_path / "cache/sources").iterdir()
        (first / "source.json").write_bytes(b"")  # as a power cut leaves it
    await fetched(sources, make_repository(FILES, name="c"))
    assert len(list((tmp_path / "cache/sources").iterdir())) < 3


async def test_a_reader_of_objects_that_dies_is_a_damaged_repository(
    sources: Sources, make_repository: MakeRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(_repository: Path, _env: Any) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(["true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return process

    repository = make_repository(FILES)
    monkeypatch.setattr(extract_module, "_open_objects", dead)
    with pytest.raises(SourceProblem, match="damaged"):
        await sources.copy(repository.uri, "main", repository.git("rev-parse", "HEAD"), tmp_path / "copy")


async def test_a_fetch_cut_short_by_a_crash_leaves_nothing_that_is_taken_for_complete(
    make_sources: Callable[..., Sources], make_repository: MakeRepository, tmp_path: Path
) -> None:
    unfinished = tmp_path / "cache/sources/.0123.abcd/tree"
    unfinished.mkdir(parents=True)
    sources = make_sources()
    assert not unfinished.exists()
    await fetched(sources, make_repository(FILES))


async def test_a_damaged_repository_is_said(sources: Sources, make_repository: MakeRepository) -> None:
    repository = make_repository(FILES)
    commit = await sources.pin(GitSource(uri=repository.uri))
    for path in (repository.path / ".git/objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"broken")
    with pytest.raises(SourceProblem):
        await sources.copy(repository.uri, "HEAD", commit, repository.path.parent / "copy")
