"""Write files that are whole or absent: beside their place, and moved there when complete."""

import glob
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.lab.errors import RecordError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, moved onto it on success and removed on failure.

    What a killed process of this machine left half-written in the place of `path` is removed as well.
    """
    host = socket.gethostname()
    temporary = path.with_name(f".{host}-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(host)}-*-{glob.escape(path.name)}"):
            if not _alive(left.name.removeprefix(f".{host}-").partition("-")[0]):
                left.unlink(missing_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RecordError(f"out: cannot write {str(path)!r} ({error.strerror or error})") from None
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ValueError:
        return True  # not a name of ours
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
