"""The one line for a failure that is no fault of the code: a file, a disk, memory."""

import errno

from aclora.core.errors import InputError, printable

# What the system said, and what to do. Where nothing helps but to look, the reason alone.
REASONS = {
    errno.ENOSPC: "no space left on its disk: free some, then repeat",
    errno.EDQUOT: "the disk quota is used up: free some, then repeat",
    errno.EACCES: "permission denied: change its owner or its mode",
    errno.EPERM: "the system does not permit it: change its owner or its mode",
    errno.EROFS: "its disk is mounted read-only",
    errno.EIO: "the disk cannot be read or written",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n), then repeat",
    errno.ENFILE: "too many open files on this machine: end other programs, then repeat",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "is a folder, and a file is needed",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.ELOOP: "symbolic links lead in a circle",
    errno.ESTALE: "its network disk is gone: mount it again",
}
MEMORY = {
    "train": "train.batch_size or train.resolution",
    "generate": "generate.batch_size",
    "evaluate": "evaluate.batch_size",
}
LONGEST = 1000  # characters of a line


def one_line(error: BaseException, stage: str = "") -> str | None:
    """What to print after "error: "; None for an exception that only its traceback explains.

    `stage` is the stage's file in stages/; it decides which knobs are named where memory runs out.
    """
    if isinstance(error, InputError):
        text = printable(error)
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    if _is_memory(error):
        knobs = MEMORY.get(stage, "the section's batch_size")
        where = "the GPU's memory" if "CUDA" in str(error) else "memory"
        return f"{where} is too small for this: lower {knobs}, or end other programs that use it"
    if isinstance(error, OSError):
        return _of_system(error)
    if type(error).__name__ == "SafetensorError":  # by name: this module loads nothing
        return _flat(error)
    return None


def _of_system(error):
    file = error.filename2 or error.filename
    if error.errno is None:  # a library's own, with a text that stands for itself
        return _flat(error)
    text = error.strerror or _flat(error)
    reason = REASONS.get(error.errno, text[:1].lower() + text[1:])
    return f"{file if file is not None else 'a file'}: {reason}"


def _is_memory(error):
    texts = ("can't allocate memory", "CUDA out of memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
    by_text = isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or by_text


def _flat(error):
    return " ".join(str(error).split())[:500] or type(error).__name__
