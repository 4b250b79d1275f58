"""Which processes run: whose half-written files are still theirs."""

import os


def is_running(process: int) -> bool:
    """Say whether another process than this one has that number."""
    if process == os.getpid():
        return False  # a container's processes have the same few numbers in each of its runs
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
