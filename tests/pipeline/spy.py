"""Put on the path as sitecustomize: writes down what a stage opens, and the parameters it asks for."""

import atexit
import json
import os
import sys
from pathlib import Path

OUT = os.environ.get("OPENED")
STAGE = next((a for a in sys.orig_argv if a.startswith("stages.")), None)

if OUT and STAGE:
    here = os.getcwd()
    opened, asked = set(), set()

    def watch(event, args):
        if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
            mode, flags = args[1], args[2] or 0
            writes = (mode and set(mode) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR)
            path = os.path.abspath(os.fsdecode(args[0]))
            if path.startswith(here + os.sep) and not writes:
                opened.add(os.path.relpath(path, here))
        elif event == "aclora.params":
            asked.add(args[0])

    def write():
        name = Path(OUT) / f"{STAGE.removeprefix('stages.')}.json"
        name.write_text(json.dumps({"opened": sorted(opened), "asked": sorted(asked)}))

    sys.addaudithook(watch)
    atexit.register(write)
