"""The process of a run: start it so that it outlives us, see whether it lives, and end it."""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from engine.jobs.folders import EVENTS, LOG, PROCESS, SPEC
from engine.results import FormatError, read_json, write_json

SECONDS_TO_START = 10.0  # before its process is written down, until a run counts as lost
SECONDS_TO_TERMINATE = 0.5  # before a process that was told to end is killed
ENGINE_PARENT = Path(__file__).parents[2]


def start_worker(folder: Path) -> None:
    """Start the worker of a run, apart from this process's terminal and group."""
    if os.name == "posix":
        apart: dict[str, Any] = {"start_new_session": True}
    else:
        apart = {"creationflags": 0x00000008 | 0x00000200}  # DETACHED_PROCESS, NEW_PROCESS_GROUP
    paths = [str(ENGINE_PARENT), os.environ.get("PYTHONPATH", "")]
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "engine.jobs.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            **apart,
        )
    threading.Thread(target=process.wait, daemon=True).start()  # so that it leaves no zombie
    try:
        write_down(folder, psutil.Process(process.pid))
    except psutil.NoSuchProcess:
        pass  # it is over already, and has written itself down
    except OSError:
        process.kill()
        raise


def write_down(folder: Path, process: psutil.Process) -> None:
    """Say in a run's folder which process does it."""
    fields = {"pid": process.pid, "created": process.create_time()}
    write_json(folder / PROCESS, "process", fields)


def is_alive(folder: Path) -> bool:
    """Whether the worker of a run lives.

    A run whose process is not yet written down counts as alive for a few seconds after it was made
    or last said something.
    """
    if (folder / PROCESS).exists():
        return process_of(folder) is not None
    last = 0.0
    for name in (SPEC, EVENTS):
        with suppress(OSError):
            last = max(last, (folder / name).stat().st_mtime)
    return time.time() - last < SECONDS_TO_START


def process_of(folder: Path) -> psutil.Process | None:
    """The living process of a run: of the id written down, begun at that time, not a zombie."""
    try:
        written = read_json(folder / PROCESS, "process")
        process = psutil.Process(written["pid"])
        same = abs(process.create_time() - written["created"]) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, FormatError, KeyError, TypeError, ValueError, OverflowError):
        return None


def end(process: psutil.Process) -> None:
    """Terminate a process and those it started; kill those that stay."""
    with suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        _, staying = psutil.wait_procs(family, timeout=SECONDS_TO_TERMINATE)
        for member in staying:
            with suppress(psutil.NoSuchProcess):
                member.kill()
