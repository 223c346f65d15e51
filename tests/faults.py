"""Put on the path as sitecustomize: a process sends itself a real signal, or finds a disk full, at a chosen moment.

SIGNAL_AT="15 import torch 1" sends signal 15 when torch is about to be imported, "2 open history.jsonl 3" signal 2 when
a file whose path ends so is opened for the third time; in the processes whose command holds the word SIGNAL_IN, with
SIGNAL_GROUP to all of its group, as a terminal does. With FULL=… nothing can be written below a folder whose path holds
that text.
"""

import errno
import os
import sys

number, moment, what, left = (os.environ.get("SIGNAL_AT") or "0 - - 1").split()
left = int(left)
own = number != "0" and any(os.environ.get("SIGNAL_IN", "stages.") in word for word in sys.orig_argv)
full = os.environ.get("FULL")
group = os.environ.get("SIGNAL_GROUP")


def watch(event, args):
    if event == "import" and own and moment == "import" and args[0] == what:
        send()
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        path, flags = os.fsdecode(args[0]), args[2] or 0
        if own and moment == "open" and path.endswith(what):
            send()
        writes = (args[1] and set(args[1]) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR)
        if full and writes and full in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def send():
    global left
    left -= 1
    if not left:
        os.killpg(0, int(number)) if group else os.kill(os.getpid(), int(number))


sys.addaudithook(watch)
