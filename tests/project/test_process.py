"""A child's output arrives line by line, and no child outlives the run that started it."""

import os
import sys
import threading
import time

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

    with pytest.raises(KeyboardInterrupt):
        python(SLEEP, interrupt)
    assert not psutil.Process().children()


def test_an_exception_ends_the_children_of_other_threads_and_prevents_more():
    started, errors = threading.Event(), []

    def sleep():
        try:
            python(SLEEP, lambda line: started.set())
        except RuntimeError as error:  # and not an exit status, which could not be trusted
            errors.append(str(error))

    thread = threading.Thread(target=sleep)

    def fail():
        with process.ending_all():
            thread.start()
            started.wait(60)
            raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fail()
    thread.join(60)
    assert len(errors) == 1
    assert errors[0].startswith("the run is ending")
    assert time.monotonic() - begin < 60
    with pytest.raises(RuntimeError, match="the run is ending"):
        python("", print)
    with process.ending_all():
        assert python("", print)[0] == 0


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
