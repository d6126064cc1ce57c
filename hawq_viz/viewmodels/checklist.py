"""What to know of a network, from the run that looked at it or its analysis."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.analysis import Analysis
    from engine.jobs import RunView

ICONS = {"problem": ":material/warning:", "note": ":material/info:"}
SPECIAL = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>$#~|:"})  # of Markdown


def findings(run: "RunView | None", analysis: "Analysis | None" = None) -> list[str] | None:
    """Each finding as a paragraph, problems first; None where nobody has looked.

    Args:
        run: That looks at the network, or has.
        analysis: With what was found, which is preferred to the run's.
    """
    if analysis is not None and analysis.findings is not None:
        told: Any = [finding.to_json() for finding in analysis.findings]
    else:
        told = run.results.get("checklist", {}).get("findings") if run else None
    if not isinstance(told, list):
        return None
    known = ("severity", "subject", "sentence")
    whole = [one for one in told if isinstance(one, dict) and all(x in one for x in known)]
    return [
        f"{ICONS.get(one['severity'], ICONS['note'])} **{plain(one['subject'])}**  \n"
        f"{plain(one['sentence'])}"
        for one in whole
    ]


def title(told: list[str]) -> str:
    """The heading above them."""
    count = f"{len(told)} finding{'s' if len(told) != 1 else ''}" if told else "nothing found"
    return f"What to know of this network: {count}"


def plain(text: object) -> str:
    """A text that Markdown shows as it is."""
    return str(text).translate(SPECIAL)
