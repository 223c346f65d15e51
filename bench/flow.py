"""What Prefect's flows cost: an unchanged pipeline through a worker, and eight styles on one and on two workers.

`python -m bench.flow` clones the project into a folder of its own and starts servers there. The eight styles are
the drawn ones with small settings, printed with the times; tracking is off.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STYLES = ("oil", "watercolor", "pixel", "pencil", "pointillism", "glass", "ink", "woodblock")
SMALL = {"train.epochs": 4, "generate.images_per_prompt": 1, "generate.num_inference_steps": 4, "evaluate.held_out": 24}
PROMPTS = 4
ENTRY = "  {0}: {{pictures: data/styles/{0}, trigger: zxq style, reference: miniature/drawing}}\n"


def project(folder: Path) -> None:
    """The committed files in a repository of their own, with all eight styles and small settings."""
    subprocess.run(["git", "clone", "-q", ".", str(folder)], check=True)
    params = folder / "params.yaml"
    text = params.read_text(encoding="utf-8")
    text = re.sub(r"^styles:\n(  .*\n|    .*\n)+", "styles:\n" + "".join(map(ENTRY.format, STYLES)), text, flags=re.M)
    for knob, value in SMALL.items():
        name = knob.split(".")[1]
        text, found = re.subn(rf"^  {name}: .*$", f"  {name}: {value}", text, count=1, flags=re.M)
        assert found, knob
    params.write_text(text, encoding="utf-8")
    prompts = folder / "data/prompts.txt"
    kept = prompts.read_text(encoding="utf-8").splitlines(keepends=True)[:PROMPTS]
    prompts.write_text("".join(kept), encoding="utf-8")


class Site:
    """Servers and workers in a project's folder."""

    def __init__(self, folder: Path, workers: int):
        self.folder, self.workers = folder, workers
        self.port = _free()
        here = {"PYTHONPATH": str(folder / "src"), "ACLORA_TRACKING": "off", "MLFLOW_TRACKING_URI": "off"}
        self.env = os.environ | here

    def __enter__(self):
        self._server("start", f"--prefect-port={self.port}", f"--workers={self.workers}")
        return self

    def __exit__(self, *_):
        self._server("stop")

    def seconds(self, *runs: list[str]) -> float:
        """From the first start to the end of all runs, each `flows.start`'s arguments."""
        start = time.monotonic()
        waiting = [self._popen("flows.start", *run, "--watch") for run in runs]
        ends = [child.wait() for child in waiting]
        if any(ends):
            sys.exit(f"a run failed: see {self.folder}/.server")
        return time.monotonic() - start

    def _server(self, *args):
        if self._popen("flows.server", *args).wait():
            sys.exit("flows.server failed")

    def _popen(self, *args):
        command = [sys.executable, "-m", *args]
        return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=subprocess.DEVNULL)


def dvc_alone(folder: Path, style: str) -> float:
    """What DVC takes of an unchanged run: reading the graph and the state of a style's stages."""
    code = f"""
import time
start = time.monotonic()
from flows.dvc_graph import changed, stages
assert not changed([s.name for s in stages([{style!r}])])
print(time.monotonic() - start)
"""
    env = os.environ | {"PYTHONPATH": str(folder / "src")}
    return float(
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True).stdout
    )


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    shown = ", ".join(f"{k} {v}" for k, v in SMALL.items())
    print(
        f"settings: {shown}, {PROMPTS} prompts; OMP_NUM_THREADS {os.environ['OMP_NUM_THREADS']}, {os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for workers in (1, 2):
            folder = Path(scratch, f"project{workers}")
            project(folder)
            with Site(folder, workers) as site:
                took = site.seconds(*(["style", f'styles=["{name}"]'] for name in STYLES))
                print(f"{'8 styles, a run each, on ' + str(workers) + ' worker' + 's' * (workers > 1):48}{took:7.1f} s")
                if workers == 1:
                    one = site.seconds(["style", 'styles=["oil"]'])
                    print(f"{'one style, nothing changed, start to end':48}{one:7.1f} s")
                    print(f"{'  of that DVC':48}{dvc_alone(folder, 'oil'):7.1f} s")
                    print(f"{'8 styles, nothing changed, one run':48}{site.seconds(['style']):7.1f} s", flush=True)
            shutil.rmtree(folder)


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
