"""What checkpoints and MLflow cost a training: the default training plain, with checkpoints, with both.

    python -m bench.tracking [--repeats 3] [--epochs 140]

In a copy of the project, in turns, so that a machine that slows down slows all three; the median of each counts.
Seconds of the whole stage, start included. The first run with MLflow makes its database and is shown apart.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STYLE = "watercolor"
NEVER = 1_000_000
WAYS = {"plain": (NEVER, "off"), "checkpoints": (10, "off"), "checkpoints and MLflow": (10, "on")}


def copy(to: Path) -> None:
    """The tracked files of this project, and the style's captions."""
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True).stdout.splitlines()
    for name in [*listed, f"data/captions/{STYLE}.jsonl"]:
        if Path(name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, to / name)
    subprocess.run(["git", "init", "-q"], cwd=to, check=True)


def train(folder: Path, every: int, epochs: int, tracking: str) -> float:
    """Seconds of the train stage."""
    file = folder / "params.yaml"
    text = re.sub(r"(?m)^  every: .*$", f"  every: {every}", file.read_text(encoding="utf-8"))
    file.write_text(re.sub(r"(?m)^  epochs: .*$", f"  epochs: {epochs}", text), encoding="utf-8")
    path = os.pathsep.join([str(folder / "src"), os.environ.get("PYTHONPATH", "")])
    env = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    env |= {"PYTHONPATH": path, "ACLORA_TRACKING": tracking}
    start = time.perf_counter()
    command = [sys.executable, "-m", "stages.train", STYLE]
    subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=140)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        copy(folder)
        every, tracking = WAYS["checkpoints and MLflow"]
        print(f"first run with MLflow: {train(folder, every, asked.epochs, tracking):.1f} s")
        took = {way: [] for way in WAYS}
        for _ in range(asked.repeats):
            for way, (every, tracking) in WAYS.items():
                took[way].append(train(folder, every, asked.epochs, tracking))
    plain = statistics.median(took["plain"])
    for way, seconds in took.items():
        each = ", ".join(f"{s:.1f}" for s in seconds)
        median = statistics.median(seconds)
        print(f"{way:24}{median:7.1f} s  {median / plain - 1:+.1%}   ({each})")


if __name__ == "__main__":
    main()
