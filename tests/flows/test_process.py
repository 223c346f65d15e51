"""A child process ends when its run loses its worker."""

import os
import signal
import subprocess
import sys

from tests.flows.conftest import at_work, environment, none_left, until

DEAF = """\
import signal
from aclora.project import dvc, process

signal.signal(signal.SIGTERM, lambda *_: None)
process.end_with_parent()
dvc.run("repro", "train-aclora@oil", log=print)
"""
WORKER = "import subprocess, sys; subprocess.run([sys.executable, 'deaf.py'])"


def test_a_run_that_ignores_its_workers_end_leaves_no_dvc(toy):
    toy.edit("params.yaml", "epochs: 2", "epochs: 3000")
    (toy.folder / "deaf.py").write_text(DEAF)
    worker = subprocess.Popen([sys.executable, "-c", WORKER], cwd=toy.folder, env=environment())
    until(lambda: at_work(toy.folder, "train-aclora.py"), 60, "the training")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    none_left(toy.folder, "train-aclora.py", "dvc", "deaf.py")
    assert not (toy.folder / "adapters/oil").exists()
