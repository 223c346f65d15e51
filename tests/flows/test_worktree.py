"""Dirt is refused; commits are fetched, made and pushed."""

import pytest

from aclora.core.errors import InputError
from aclora.project import git
from flows import dvc_graph, worktree


def test_dvcs_outs_do_not_count_as_dirt_and_are_committed(toy):
    toy.run("dvc", "repro")
    worktree.refuse_dirty(dvc_graph.outs(), "retrain")
    commit = worktree.commit(dvc_graph.outs(), "retrain: all")
    assert toy.run("git", "log", "-1", "--format=%h %s").stdout == f"{commit} retrain: all\n"
    kept = toy.run("git", "show", "--name-only", "--format=").stdout.split()
    scores = {f"metrics/{style}/{file}" for style in ("ink", "oil") for file in ("scores.json", "pages/1.txt")}
    assert set(kept) == {"dvc.lock", "captions/.gitignore", "adapters/.gitignore"} | scores
    assert worktree.commit(dvc_graph.outs(), "again") is None


@pytest.mark.parametrize("kind", ["changed", "deleted", "staged", "new"])
def test_any_other_change_is_dirt(toy, kind):
    file = toy.folder / "pictures/oil" / ("2.png" if kind == "new" else "1.png")
    file.unlink() if kind == "deleted" else file.write_text("other")
    if kind == "staged":
        toy.run("git", "add", "-A")
    message = rf"the work tree is dirty: pictures/oil/{file.name}; retrain starts from a commit: commit or stash them"
    with pytest.raises(InputError, match=message):
        worktree.refuse_dirty(dvc_graph.outs(), "retrain")


def test_a_branch_is_fast_forwarded_and_never_merged(toy):
    assert worktree.pull() is None
    other = toy.folder.parent / "other"
    toy.run("git", "clone", "-q", "--bare", ".", str(other.with_suffix(".git")))
    toy.run("git", "remote", "add", "origin", str(other.with_suffix(".git")))
    toy.run("git", "push", "-q", "-u", "origin", "main")
    toy.run("git", "clone", "-q", str(other.with_suffix(".git")), str(other))
    for command in (["commit", "--allow-empty", "-qm", "theirs"], ["push", "-q"]):
        toy.run("git", "-C", str(other), "-c", "user.name=t", "-c", "user.email=t@t", *command)
    assert worktree.pull().endswith("theirs")
    toy.run("git", "commit", "--allow-empty", "-qm", "ours")
    toy.run("git", "-C", str(other), "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--allow-empty", "-qm", "x")
    toy.run("git", "-C", str(other), "push", "-q")
    with pytest.raises(InputError, match=r"^git pull: "):
        worktree.pull()


def test_a_commit_must_be_pushed_before_workers_can_use_it(toy):
    with pytest.raises(InputError, match=r"^commit .{7} is in no branch of a git remote, .*: git push first"):
        worktree.pushed_commit()
    assert not worktree.push()
    bare, other = toy.folder.parent / "origin.git", toy.folder.parent / "other"
    toy.run("git", "clone", "-q", "--bare", ".", str(bare))
    toy.run("git", "clone", "-q", str(bare), str(other))
    toy.run("git", "remote", "add", "origin", str(bare))
    toy.run("git", "fetch", "-q")
    toy.run("git", "branch", "-q", "-u", "origin/main")
    toy.run("git", "commit", "--allow-empty", "-qm", "ours")
    assert worktree.push()
    commit = worktree.pushed_commit()
    toy.run("git", "-C", str(other), "fetch", "-q")
    assert toy.run("git", "-C", str(other), "log", "-1", "--format=%H", "origin/main").stdout == f"{commit}\n"


def test_a_checkout_resets_dvcs_outs(toy):
    first = git.run("rev-parse", "HEAD").strip()
    toy.run("dvc", "repro", "evaluate@oil")
    worktree.commit(dvc_graph.outs(), "all")
    toy.edit("params.yaml", "seed: 0", "seed: 1")
    toy.commit()
    toy.run("dvc", "repro", "evaluate@oil")  # dvc.lock and a file that git keeps differ now
    worktree.check_out(git.run("rev-parse", "main").strip())
    assert git.run("status", "--porcelain") == ""
    worktree.check_out(first)
    assert not (toy.folder / "dvc.lock").exists()
    with pytest.raises(InputError, match=r"^git checkout: "):
        worktree.check_out("c" * 40)


def test_one_run_at_a_time(toy):
    with (
        worktree.exclusive(),
        pytest.raises(InputError, match="every worker needs a clone of its own"),
        worktree.exclusive(),
    ):
        pass
    with worktree.exclusive():
        pass
