"""git as a child process: text, bytes, settings, and its reasons in one line."""

import pytest

from aclora.core.errors import InputError
from aclora.project import git


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with one commit, the current folder."""
    monkeypatch.chdir(tmp_path)
    git.run("init", "-q", "-b", "main")
    for key, value in (("name", "t"), ("email", "t@t")):
        git.run("config", f"user.{key}", value)
    (tmp_path / "a").write_bytes(b"\xff\x00\r\n")
    git.run("add", "a")
    git.run("commit", "-q", "-m", "wäsche")
    return tmp_path


def test_text_and_bytes(clone, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert git.run("log", "-1", "--format=%s", folder=clone) == "wäsche\n"
    assert git.run_bytes("show", "HEAD:a", folder=clone) == b"\xff\x00\r\n"
    assert git.run("hash-object", "--stdin", folder=clone, stdin=b"\xff\x00\r\n") == git.run(
        "rev-parse", "HEAD:a", folder=clone
    )


def test_the_reason_is_gits_own(clone):
    with pytest.raises(InputError, match=r"^git checkout: pathspec 'nowhere' did not match"):
        git.run("checkout", "nowhere")
    with pytest.raises(InputError, match=r"^git show: ambiguous argument 'nowhere'"):
        git.run("show", "nowhere")
    with pytest.raises(InputError, match=r"^git rev-parse: it failed without a message$"):
        git.run("rev-parse", "--verify", "--quiet", "nowhere")


def test_without_git_it_says_so(clone, monkeypatch):
    monkeypatch.setenv("PATH", str(clone))
    with pytest.raises(InputError, match="git is missing: install it"):
        git.run("status")


def test_hooks_run_unless_they_are_switched_off(clone):
    hook = clone / ".git/hooks/post-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho >> hooked\n")
    hook.chmod(0o755)
    git.run("commit", "-q", "--allow-empty", "-m", "plain", config=git.NO_HOOKS)
    assert not (clone / "hooked").exists()
    git.run("commit", "-q", "--allow-empty", "-m", "hooked")
    assert (clone / "hooked").exists()


def test_line_ends_of_the_users_files_are_accepted(clone):
    git.run("config", "core.safecrlf", "true")
    git.run("config", "core.autocrlf", "input")
    (clone / "b").write_bytes(b"x\r\n")
    git.run("add", "b")
    assert git.run("ls-files") == "a\nb\n"


def test_experiments_of_all_commits_and_of_one(clone):
    first = git.run("rev-parse", "HEAD").strip()
    git.run("commit", "-q", "--allow-empty", "-m", "second")
    second = git.run("rev-parse", "HEAD").strip()
    for ref in ("stash", "exec/EXEC_BASELINE", "celery/stash"):  # what DVC also keeps there
        git.run("update-ref", f"refs/exps/{ref}", second)
    for base, name in ((first, "bold-fish"), (second, "lazy-cat")):
        git.run("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", second)
    assert git.experiments() == {"bold-fish": second, "lazy-cat": second}
    assert git.experiments(of=first) == {"bold-fish": second}
    assert git.Experiment("lazy-cat", second, second) in git.all_experiments()


def test_what_begins_with_a_dash_is_an_option_and_no_name(clone):
    assert git.commit_of("HEAD") == git.run("rev-parse", "HEAD").strip()
    for name in ("--help", "-x", "--exec=touch owned", "nowhere"):
        assert git.commit_of(name) is None
