"""What people call a run and say of it: a file of its folder, apart from what was asked."""

import unicodedata
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from engine.jobs.folders import changing
from engine.results import FormatError, read_json, write_json

DESCRIPTION = "description.json"
LONGEST_TITLE, LONGEST_REMARK = 80, 2_000  # characters


@dataclass(frozen=True)
class Description:
    """A run's title, on one line, and a remark; any text, so escape it wherever it is shown."""

    title: str = ""
    remark: str = ""

    def __post_init__(self) -> None:
        for name, longest in (("title", LONGEST_TITLE), ("remark", LONGEST_REMARK)):
            text = getattr(self, name)
            if not isinstance(text, str):
                raise ValueError(f"{name} must be text, got {text!r}.")
            if len(text) > longest:
                raise ValueError(
                    f"{name} must have {longest:,} characters at most, got {len(text):,}: "
                    "shorten it."
                )
            line_ends = "\n" if name == "remark" else ""
            for letter in text:
                if unicodedata.category(letter) in ("Cc", "Cs") and letter not in line_ends:
                    raise ValueError(
                        f"{name} must hold no control characters, got {letter!r}: leave it out."
                    )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the description in a run's folder; an empty one where none can be read."""
        with suppress(FormatError, TypeError, ValueError):
            return cls(**read_json(folder / DESCRIPTION, "description"))
        return cls()


def describe(run_id: str, *, title: str | None = None, remark: str | None = None) -> Description:
    """Give a run a title, a remark or both, in any state that it is in.

    Args:
        run_id: Any run.
        title: What to call it; spaces at the ends go, others become one. Empty takes it away; None
            leaves it as it is.
        remark: What to say of it, over lines; likewise.

    Returns:
        What the run has now.

    Raises:
        ValueError: If there is no such run, or a text is too long or holds control characters.
        FormatError: If its folder cannot be written.
    """
    with changing(run_id) as folder:
        described = Description.load(folder)
        if title is not None:
            described = replace(described, title=" ".join(title.split()))
        if remark is not None:
            lines = remark.expandtabs().splitlines()
            described = replace(described, remark="\n".join(map(str.rstrip, lines)).strip())
        write_json(folder / DESCRIPTION, "description", asdict(described))
    return described
