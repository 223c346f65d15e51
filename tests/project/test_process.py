"""A child's output arrives line by line, and no child outlives the run that started it."""

import os
import subprocess
import sys

import psutil
import pytest

from aclora.project import process

SLEEP = "import time; print('started', flush=True); time.sleep(600)"


def python(code, log, **more):
    return process.run([sys.executable, "-c", code], log, **more)


def test_lines_as_they_arrive_and_of_a_bar_its_last_state(tmp_path):
    code = "print('a'); print('10 %\\r50 %\\r100 %'); print(); print('wäsche', end=''); raise SystemExit(3)"
    heard = []
    status, lines = python(code, heard.append)
    assert (status, lines) == (3, ["a", "100 %", "wäsche"])
    assert heard == lines


def test_its_folder_its_environment_and_this_python_first(tmp_path):
    code = "import os; print(os.getcwd()); print(os.environ['KNOB']); print(os.environ['PATH'].split(os.pathsep)[0])"
    _, lines = python(code, lambda line: None, folder=tmp_path, env={"KNOB": "7"})
    assert lines == [str(tmp_path), "7", os.path.dirname(sys.executable)]


def test_without_a_log_the_output_goes_where_ours_goes(capfd):
    assert python("import sys; print('out'); print('err', file=sys.stderr)", None) == (0, [])
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("out\n", "err\n")


def test_an_exception_ends_the_child():
    def interrupt(line):
        raise KeyboardInterrupt

    before = psutil.Process().children()
    with pytest.raises(KeyboardInterrupt):
        python(SLEEP, interrupt)
    assert psutil.Process().children() == before


IN_A_THREAD = """
import sys, threading
from aclora.project import process

def sleep():
    code = "import time; print('started', flush=True); time.sleep(600)"
    try:
        process.run([sys.executable, "-c", code], lambda line: started.set())
    except RuntimeError as error:  # and not an exit status, which could not be trusted
        print(str(error)[:17])

started = threading.Event()
thread = threading.Thread(target=sleep)
try:
    with process.ending_all():
        thread.start()
        started.wait(60)
        raise KeyboardInterrupt
except KeyboardInterrupt:
    thread.join(60)
print(thread.is_alive())
try:
    process.run([sys.executable, "-c", ""], print)
except RuntimeError as error:
    print(str(error)[:17])
with process.ending_all():
    print(process.run([sys.executable, "-c", ""], print)[0])
"""


def test_an_exception_ends_the_children_of_other_threads_and_prevents_more():
    """In a process of its own: it ends every child, those of other tests too."""
    done = subprocess.run([sys.executable, "-c", IN_A_THREAD], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["the run is ending", "False", "the run is ending", "0"], done.stderr


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["error: a", "error: b", "ERROR: failed to reproduce", "last"], "b"),
        (["x", "ERROR: first", "ERROR: second"], "first"),
        (["fatal: no such path", "Use '--' to separate paths"], "no such path"),
        (["x", "y"], "y"),
        ([], "it failed without a message"),
    ],
)
def test_the_reason_of_a_failure(lines, reason):
    assert process.reason(lines) == reason


def test_a_child_can_go_without_keys_and_tokens(monkeypatch):
    secrets = (
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "PREFECT_API_AUTH_STRING",
        "GITHUB_TOKEN",
    )
    kept = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HOME", "HOME", "PYTHONPYCACHEPREFIX", "LC_ALL")
    for name in (*secrets, *kept, "ANYTHING"):
        monkeypatch.setenv(name, "hunter2")
    command = [sys.executable, "-c", "import os; print(*os.environ)"]
    _, lines = process.run(command, log=lambda line: None, env=process.without_secrets() | {"ANYTHING": "of its own"})
    seen = set(lines[0].split())
    assert not seen & set(secrets)
    assert {*kept, "PATH", "ANYTHING"} <= seen
