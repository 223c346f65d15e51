"""Time and peak memory of every stage of the default run, and of `dvc repro` with nothing to do.

`python -m bench.repro [STYLE]` runs each stage again by force; its outs come out the same.
"""

import os
import subprocess
import sys
import time

STAGES = ("caption", "train-aclora", "restart-audit", "generate", "evaluate")


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of a command, its child processes included."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed ({process.returncode}): run it by hand to see why")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def main() -> None:
    style = sys.argv[1] if len(sys.argv) > 1 else "watercolor"
    print(f"{'stage':16}{'seconds':>10}{'peak MiB':>10}")
    total = 0.0
    for stage in STAGES:
        seconds, memory = measured(["dvc", "repro", "--single-item", "--force", f"{stage}@{style}"])
        total += seconds
        print(f"{stage:16}{seconds:10.1f}{memory:10.0f}", flush=True)
    print(f"{'all five':16}{total:10.1f}")
    seconds, memory = measured(["dvc", "repro"])
    print(f"{'nothing to do':16}{seconds:10.1f}{memory:10.0f}")


if __name__ == "__main__":
    main()
