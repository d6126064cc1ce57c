"""All runs in a table: what each is, how it ended, what it measured; and which of them to list."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from engine.results import Evaluation
from hawq_viz.figures.costs import KIB
from hawq_viz.viewmodels.measured import evaluation_of
from hawq_viz.viewmodels.runs import RECIPES, bits_text, made_at, plan_of, recipe_of, share_done

if TYPE_CHECKING:
    from engine.jobs import RunView

KINDS = {
    "check": "Look at the network",
    "analyze": "Analysis",
    "quantize": "Rounded",
    "finetune": "Fine-tuned",
    "export": "Files",
}
STATES = {  # state → its sign
    "queued": "◌",
    "running": "▶",
    "finished": "✓",
    "failed": "✗",
    "cancelled": "■",
    "crashed": "✗",
}
OUTCOMES = ("finetuned", "plan")  # which result tells what a run came to


@dataclass(frozen=True)
class Filter:
    """Which runs to list; an empty field lets all pass."""

    network: str = ""
    kind: str = ""
    state: str = ""
    find: str = ""  # words that all have to be somewhere in what is known of a run

    def __bool__(self) -> bool:
        return any((self.network, self.kind, self.state, self.find.strip()))

    def of(self, runs: Iterable["RunView"]) -> list["RunView"]:
        """Those that pass, in their order."""
        return [run for run in runs if self._passes(run)]

    def _passes(self, run: "RunView") -> bool:
        same = all(
            wanted in ("", had)
            for wanted, had in (
                (self.network, run.workload),
                (self.kind, run.kind),
                (self.state, run.state),
            )
        )
        return same and all(word in _known(run) for word in self.find.casefold().split())


def _known(run: "RunView") -> str:
    """Everything that a search looks through."""
    plan, parts = plan_of(run), [run.title, run.remark, run.id, run.workload, run.state, what(run)]
    parts += [bits_text(plan)] if plan else []
    parts += [f"seed {run.options.get('seed') or 0}", str(run.options.get("data", "sample"))]
    return "\n".join(parts).casefold()


def what(run: "RunView") -> str:
    """What kind of run it is, in two words."""
    kind = KINDS.get(run.kind, run.kind)
    if run.kind != "finetune":
        return kind
    return f"{kind}, {RECIPES[recipe_of(run)].partition(':')[0].lower()}"


def outcome(run: "RunView") -> Evaluation | None:
    """What its network was measured to reach, the last there is."""
    found = (evaluation_of(run, name) for name in OUTCOMES)
    return next((x for x in found if x is not None), None)


def state_in_short(run: "RunView") -> str:
    """The state with its sign, and how far it is, in tenths, or how many are ahead."""
    says = f"{STATES.get(run.state, '?')} {run.state}"
    if run.cancelling:
        return f"{STATES['cancelled']} cancelling"
    if run.state == "queued":
        return f"{says}, {run.place} ahead" if run.place else f"{says}, next"
    if run.state == "running" and run.total:
        return f"{says} {int(10 * share_done(run)) / 10:.0%}"
    return says


def run_table(runs: Sequence["RunView"]) -> pd.DataFrame:
    """One row a run, in their order."""
    return pd.DataFrame([_row(run) for run in runs], columns=COLUMNS)


def _row(run: "RunView") -> dict[str, object]:
    plan, found = plan_of(run), outcome(run)
    low, high = found.interval if found else (0.0, 0.0)
    made = made_at(run)
    return {
        "run": run.title or what(run),
        "state": state_in_short(run),
        "measured (%)": 100 * found.value if found else None,
        "95 % interval": f"{100 * low:.1f} … {100 * high:.1f}" if found else "",
        "bits": bits_text(plan) if plan else "",
        "size (KiB)": plan["size_bytes"] / KIB if plan else None,
        "Ω": plan["omega"] if plan else None,
        "loss": found.loss if found else None,
        "network": run.workload,
        "kind": what(run),
        "images": str(run.options.get("data", "sample")),
        "seed": str(run.options.get("seed") or 0) if run.kind in SEEDED else "",
        "made": made.replace(tzinfo=None) if made else None,
        "minutes": run.seconds / 60,
        "metric": found.metric_name if found else "",
        "remark": " ".join(run.remark.split()),
    }


SEEDED = ("analyze", "finetune")  # kinds that draw
COLUMNS = (
    *("run", "state", "measured (%)", "95 % interval", "bits", "size (KiB)", "Ω", "loss"),
    *("network", "kind", "images", "seed", "made", "minutes", "metric", "remark"),
)
