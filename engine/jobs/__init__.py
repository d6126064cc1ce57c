"""Runs of long work: one folder and one detached worker process each.

A run's folder holds `spec.json` (what was asked), `proc.json` (which process does it),
`events.jsonl` (what it said), `log.txt` (its output), its checkpoint and its artefacts; and
`description.json`, if people gave it a title or a remark. Dashboard, command line and notebooks
start and read the same runs, and no two processes need to share memory for it. What state a run is
in is derived from its last event and from whether its process is alive; it is stored nowhere, so it
cannot be wrong after a crash.

Reads in the order folders, descriptions, processes, events, turns, reading, runs, ending, options,
launching, work, worker; only what the last two do imports torch.
"""

from engine.jobs.descriptions import describe
from engine.jobs.ending import cancel, delete
from engine.jobs.events import FINAL
from engine.jobs.folders import runs_folder
from engine.jobs.launching import launch, resume
from engine.jobs.runs import RunView, follow, list_runs, view

__all__ = [
    "FINAL",
    "RunView",
    "cancel",
    "delete",
    "describe",
    "follow",
    "launch",
    "list_runs",
    "resume",
    "runs_folder",
    "view",
]
