"""The process of a run: start it so that it outlives us, and see whether it lives."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from engine.jobs.folders import LOG, PROCESS, SPEC
from engine.results import FormatError, read_json, write_json

SECONDS_TO_START = 10.0  # between the spec and the process id, before a run without one is lost
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
    created = psutil.Process(process.pid).create_time()
    write_json(folder / PROCESS, "process", {"pid": process.pid, "created": created})
    threading.Thread(target=process.wait, daemon=True).start()  # so that it leaves no zombie


def is_alive(folder: Path) -> bool:
    """Whether the worker of a run lives: the process of that id, begun at that time, not a zombie.

    A run whose process is not yet written down counts as alive for a few seconds.
    """
    if not (folder / PROCESS).exists():
        return time.time() - (folder / SPEC).stat().st_mtime < SECONDS_TO_START
    try:
        written = read_json(folder / PROCESS, "process")
        process = psutil.Process(written["pid"])
        same = abs(process.create_time() - written["created"]) < 1
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, FormatError, KeyError, TypeError):
        return False
