"""Fine-tune on a disk that fills up, and go on once there is room: `full_disk.py FOLDER WAY`.

WAY "mount" makes FOLDER a disk of 2 MB, for which one must be root, if only in a namespace of one's
own (`unshare --user --map-root-user --mount`). WAY "limit" lets no file grow beyond 300 kB instead.
Prints what was seen as JSON; the test is in `test_jobs_faults.py`.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from live import slow_file, slow_options, step_of, wait_for_end, wait_until

from engine.jobs import launch, resume
from engine.jobs.folders import RESERVE
from engine.results import FormatError

WIDTH = 2000  # of the network, so that a checkpoint has 360 kB
LIMIT = 300_000  # bytes, of a file


def main(folder: Path, way: str) -> None:
    """Run out of room twice, be refused once, and finish."""
    if way == "mount":
        command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
        subprocess.run(command, check=True)
    os.environ["HAWQ_VIZ_RUNS"] = str(folder / "runs")
    options = slow_options(epochs=4, checkpoint_every=10_000)
    spec = slow_file(folder, seconds=0.02, width=WIDTH)
    try:
        print(json.dumps(_limited(spec, options) if way == "limit" else _filled(spec, options)))
    finally:
        if way == "mount":
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _limited(spec: str, options: dict) -> dict[str, object]:
    """The checkpoint is larger than a file may be, until the limit is lifted."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, most))
    run_id = launch("finetune", "slow", options, workload_file=spec)
    failed = wait_for_end(run_id)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    resume(run_id)
    return _seen([failed], wait_for_end(run_id), None)


def _filled(spec: str, options: dict) -> dict[str, object]:
    """The disk has no room for a checkpoint; then not for another line."""
    filler = Path(spec.rpartition(":")[0]).with_name("filler")
    run_id = launch("finetune", "slow", options | {"checkpoint_every": 50}, workload_file=spec)
    failed = []
    for room in (200_000, 0):
        wait_until(run_id, lambda seen: step_of(seen) > 20 and seen.state == "running")
        _fill(filler, room)
        failed.append(wait_for_end(run_id))
        refused = _refused(lambda: resume(run_id)) if room == 0 else None
        filler.unlink()
        resume(run_id)
    return _seen(failed, wait_for_end(run_id), refused)


def _fill(filler: Path, room: int) -> None:
    """Write until there is no more, then give some room back."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - room))


def _refused(do: Callable[[], None]) -> str:
    try:
        do()
    except FormatError as error:
        return str(error)
    return ""


def _seen(failed: list, last, refused: str | None) -> dict[str, object]:
    return {
        "failed": [[run.state, run.error, run.log_tail[-2000:]] for run in failed],
        "reserves": [(run.folder / RESERVE).exists() for run in (*failed, last)],
        "refused": refused,
        "state": last.state,
        "error": last.error,
        "results": list(last.results),
        "floats": sum(row.get("name") == "float" for row in last.rows),
        "steps": [row["step"] for row in last.latest("step")],
        "last": last.results.get("training", {}).get("steps"),
        "log": last.log_tail[-2000:],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
