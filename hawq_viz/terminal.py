"""What the command line prints: results for people or as one JSON line, progress, and errors."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from engine.results import Evaluation

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes


def show(arguments: argparse.Namespace, result: Mapping[str, Any], *lines: str) -> None:
    """Print a result as one JSON line if that was asked for, else the lines for people."""
    print(json.dumps(result, allow_nan=False) if arguments.json else "\n".join(lines))


def say(what: object) -> None:
    """Tell people something beside the result."""
    print(f"hawq-viz: {what}", file=sys.stderr)


def check_out(path: Path) -> None:
    """See that a result can be saved there, before it is worked for.

    Raises:
        ValueError: If its name does not say that it is JSON.
    """
    if path.suffix != ".json":
        raise ValueError(f"--out must be a file that ends in .json, got {str(path)!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)


def measured(evaluation: Evaluation) -> str:
    """An evaluation in a line."""
    low, high = evaluation.interval
    return (
        f"{evaluation.metric_name} {evaluation.value:.2%} (95 % interval {low:.2%} to {high:.2%}), "
        f"loss {evaluation.loss:.4f}, {evaluation.provenance.data}"
    )


class Bar:
    """Progress on the terminal, and nothing where standard error is none."""

    def __enter__(self) -> "Bar":
        self._begin(0, None, "")
        return self

    def __call__(self, done: int, total: int, note: str) -> None:
        """Show how far it is; another total begins another rate, from where it then is."""
        if total != self._bar.total or done < self._bar.n:
            self._begin(done, total, note)
        self._bar.set_description(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def waits(self, note: str) -> None:
        """Show why there is no progress."""
        self._bar.set_description(note)

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._bar.close()

    def _begin(self, done: int, total: int | None, note: str) -> None:
        if hasattr(self, "_bar"):
            self._bar.close()
        self._bar: tqdm[Any] = tqdm(
            initial=done, total=total, desc=note, disable=None, leave=False, file=sys.stderr
        )
