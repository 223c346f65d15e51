"""The `aclora` command as a shell meets it: help, version, completion, exit statuses."""

import os
import shutil
import signal
import subprocess
import sys
import tomllib

import pytest

import aclora
from aclora.cli.errors import EXTRAS
from aclora.cli.main import main
from tests.conftest import ROOT

COMMANDS = ["check", "run", "scores", "compare", "plots", "publish", "reproduce", "inspect", "export", "resize"]
HEAVY = {
    "torch",
    "numpy",
    "safetensors",
    "peft",
    "diffusers",
    "transformers",
    "PIL",
    "yaml",
    "matplotlib",
    "vl_convert",
}
HEAVY |= {"dvc", "mlflow", "prefect", "pandas", "rich"}
LAUNCH = (
    "import sys; from aclora.cli.main import main; status = main(sys.argv[1:]); print(*sys.modules); sys.exit(status)"
)


def launched(*arguments, **env):
    """The command in a process of its own; where Python goes on afterwards, the last line names all loaded modules."""
    command = [sys.executable, "-c", LAUNCH, *arguments]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)


def loaded(output):
    return {name.split(".")[0] for name in output.splitlines()[-1].split()}


def test_help_shows_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    listed = shown.split("Commands:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    assert not any(line.endswith("...") for line in listed)  # each summary fits into its line
    assert main([]) == 2  # as a wrong use does


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(capsys, command):
    assert main([command, "-h"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: aclora {command} ")
    assert f"aclora {command}" in shown.split("examples:")[1]


@pytest.mark.parametrize("command", [[], ["compare"], ["reproduce"], ["export"]], ids=str)  # one of each file
def test_help_loads_nothing_heavy(command):
    shown = launched(*command, "--help")
    assert shown.returncode == 0
    assert "typer" in loaded(shown.stdout)
    assert not loaded(shown.stdout) & HEAVY
    if not command:
        assert "pydantic" not in loaded(shown.stdout)  # typer loads it for a command's parameters


def test_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"aclora {aclora.__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("aclora ", COMMANDS),
        ("aclora ex", ["export"]),
        ("aclora run in", ["ink"]),
        ("aclora export x --to ", ["peft", "diffusers", "kohya"]),
        ("aclora publish o", ["oil"]),
        ("aclora compare main other --style ", ["ink", "oil"]),
    ],
)
def test_tab_completes(tmp_path, words, expected):
    for style in ("oil", "ink"):
        (tmp_path / "metrics" / style).mkdir(parents=True)
        (tmp_path / "metrics" / style / "evaluation.json").write_text("{}")
    (tmp_path / "metrics/unfinished").mkdir()
    script = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from aclora.cli.main import main; main()"],
        env=os.environ
        | {"_ACLORA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert script.stdout.split() == expected
    imported = {line.split("|")[-1].strip().split(".")[0] for line in script.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & HEAVY


def test_completion_can_be_installed(tmp_path):
    shown = launched("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_ACLORA_COMPLETE=complete_bash" in shown.stdout
    env = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
    installed = launched("--install-completion", "bash", **env)
    assert "bash completion installed" in installed.stdout
    assert ".bash_completions/aclora.sh" in (tmp_path / ".bashrc").read_text()
    assert "complete -o default -F _aclora_completion aclora" in (tmp_path / ".bash_completions/aclora.sh").read_text()


@pytest.mark.parametrize(
    ("command", "status", "error"),
    [
        ("check", 1, "params.yaml is missing: run from the project's folder"),
        ("run", 1, "params.yaml is missing: run from the project's folder"),
        ("scores", 1, "params.yaml is missing: run from the project's folder"),
        ("compare nowhere main", 1, "'nowhere' is no folder, git revision or experiment"),
        ("publish", 2, "params.yaml is missing: run from the project's folder"),
        ("inspect nowhere.safetensors", 2, "nowhere.safetensors: no such file or folder"),
    ],
)
def test_unusable_input_is_one_line_on_stderr(tmp_path, monkeypatch, capsys, command, status, error):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    assert main(command.split()) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {error}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_signal_ends_a_command_in_one_line(tmp_path, command, number):
    shutil.copy(ROOT / "tests/faults.py", tmp_path / "sitecustomize.py")
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)]), "SIGNAL_IN": "aclora"}
    env |= {"SIGNAL_AT": f"{int(number)} import torch 1"}
    code = "import sys; from aclora.cli.main import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", code, command], cwd=ROOT, env=os.environ | env, capture_output=True, text=True
    )
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert ended.returncode == 128 + number
    assert (ended.stdout, ended.stderr) == ("", f"{word}: aclora {command}; run again to go on\n")


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("exprot", "No such command 'exprot'. Did you mean 'export'?"),
        ("compare main", "Missing argument 'B'"),
        ("export x --to onnx --out y", "'onnx' is not one of 'peft', 'diffusers', 'kohya'"),
        ("resize x --out y --rank many", "Invalid value for '--rank': Input should be a valid integer"),
        ("scores --everything", "No such option: --everything"),
    ],
)
def test_wrong_use_is_explained_with_status_2(capsys, command, error):
    assert main(command.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith("Usage: aclora ")
    assert error in err


@pytest.mark.parametrize(
    ("command", "package", "status", "extra"),
    [("plots main", "vl_convert", 1, "pipeline"), ("reproduce fog@champion", "mlflow", 2, "tracking")],
)
def test_a_package_of_an_extra_is_named(monkeypatch, capsys, command, package, status, extra):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.chdir(ROOT)
    assert main(command.split()) == status
    assert capsys.readouterr().err == f"error: {package} is missing: install aclora with its extra '{extra}'\n"


def test_the_named_extras_bring_those_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for package, extra in EXTRAS.items():
        listed = [line.partition(">")[0].partition("<")[0] for line in project["optional-dependencies"][extra]]
        assert {package, f"{package.replace('_', '-')}-python"} & set(listed), package


def test_a_bugs_traceback_is_plain(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import aclora.cli.errors as e\ne.InputError = OSError\n")
    shown = launched("inspect", "nowhere.safetensors", PYTHONPATH=f"{tmp_path}:{ROOT / 'src'}")
    assert shown.returncode == 1
    assert "Traceback (most recent call last):" in shown.stderr
    assert shown.stderr.splitlines()[-1].startswith("aclora.core.errors.InputError: nowhere.safetensors")
    assert "╭" not in shown.stderr


def test_the_installed_command_is_this_app():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"aclora": f"{main.__module__}:{main.__name__}"}
