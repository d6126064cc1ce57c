"""Everything that a link holds, and nothing that none could have written."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields

from engine.analysis import COSTS
from hawq_viz.figures.finetune import MOST_RUNS
from hawq_viz.viewmodels.run_table import KINDS, STATES
from hawq_viz.viewmodels.studies import COMPARED, PLANNED, SEVERAL

LEAST, MOST = 1e-6, 1e18  # that a budget may be, whatever its unit
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}")
BITS = re.compile(r"[1-8]{1,1000}")
LOCKED = re.compile(r"\d{1,4}:[1-8](,\d{1,4}:[1-8])*")
TIED = re.compile(r"\d{1,4}(-\d{1,4})*(,\d{1,4}(-\d{1,4})*)*")
WIDTHS = re.compile(r"1?2?3?4?5?6?7?8?")
PINNED = re.compile(r"[1-8]{1,1000}(\.[1-8]{1,1000})?|\.[1-8]{1,1000}")
SORTS = ("trace", "omega")
MOST_PINS = 3
LONGEST = 6_000  # letters of one parameter
FIXED = re.compile(rf"[1-8]|{PLANNED}")
DIGEST = re.compile(r"[0-9a-f]{12}")
MOST_LETTERS = 200  # of the name of an activation or a network
MOST_OVERLAID = MOST_RUNS - 1  # runs drawn over the watched one


@dataclass(frozen=True)
class View:
    """Everything that a link holds."""

    workload: str = ""  # none: the first there is
    analysis: str = ""  # run that made it; none: the one that comes with the workload
    cost: str = ""  # that the frontier is drawn against; none: size
    size: float | None = None  # bytes the picked plan may have; none: the suggested one
    activation_memory: float | None = None  # the same in the other costs
    activation_peak: float | None = None
    bops: float | None = None
    latency: float | None = None
    fixed: str = ""  # bits of what the cost does not choose; none: it stays float
    table: str = ""  # of latencies
    run: str = ""  # the one watched
    overlay: str = ""  # runs drawn over it, parted by commas
    bits: str = ""  # of an opened plan, a digit a layer; none: the frontier's plan of that budget
    abits: str = ""  # the same of its activations
    activation: str = ""  # the one looked at closely; none: the most sensitive
    layer: str = ""  # likewise
    at: int | None = None  # bits at which they are
    sort: str = ""  # what layers are sorted by; none: forward order
    locked: str = ""  # bits of layers that are held, as POSITION:BITS, parted by commas
    alocked: str = ""  # the same of activations
    tied: str = ""  # positions of layers that share their bits, as 1-3-5, groups parted by commas
    widths: str = ""  # bit widths that may be used, a digit each; none: all that were analyzed
    pins: str = ""  # pinned plans as BITS or BITS.ABITS, parted by commas
    low: float | None = None  # ends of the part of the cost axis that is looked at
    high: float | None = None
    band: str = ""  # "on": how certain the frontier is, is shown
    compare: str = ""  # two runs set side by side, parted by a comma
    network: str = ""  # whose runs are listed; none: all
    kind: str = ""  # likewise
    state: str = ""  # likewise
    find: str = ""  # words that are in what is known of a listed run
    data: str = ""  # "full": runs are started on all images; none: on the sample

    @property
    def overlaid(self) -> tuple[str, ...]:
        """The runs drawn over the watched one."""
        return tuple(run for run in self.overlay.split(",") if run not in ("", self.run))

    @property
    def compared(self) -> tuple[str, ...]:
        """The two runs side by side; none if there are not two."""
        runs = tuple(dict.fromkeys(self.compare.split(",")))
        return runs if len(runs) == 2 else ()

    @property
    def axis(self) -> str:
        """The cost that the frontier is drawn against."""
        return COMPARED if self.cost == SEVERAL else self.cost or "size"

    @property
    def budget(self) -> float | None:
        """What the picked plan may cost of that."""
        return getattr(self, self.axis)

    @property
    def budgets(self) -> dict[str, float]:
        """All that was asked of costs."""
        asked = {cost: getattr(self, cost) for cost in COSTS}
        return {cost: budget for cost, budget in asked.items() if budget is not None}


LIMITS = ("locked", "alocked", "tied", "widths")  # what plans have to keep to
PICK = ("cost", *COSTS, "fixed", "table", "bits", "abits", *LIMITS)  # what a plan is picked by


def encode(view: View) -> dict[str, str]:
    """A view as query parameters; what is not chosen is left out."""
    chosen = {key: value for key, value in asdict(view).items() if value not in ("", None)}
    return {
        key: repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
        for key, value in chosen.items()
    }


def decode(parameters: Mapping[str, str]) -> View:
    """Read a view from query parameters; what no view could have written is passed over."""
    found: dict[str, str | float] = {
        name: text
        for name, known in KNOWN.items()
        if len(text := parameters.get(name, "")) <= LONGEST and known(text)
    }
    for name in (*COSTS, "low", "high"):
        try:
            budget = float(parameters[name])
        except (KeyError, ValueError):
            continue
        if LEAST <= budget <= MOST:
            found[name] = budget
    if parameters.get("at", "") in tuple("12345678"):
        found["at"] = int(parameters["at"])
    return View(**found)  # type: ignore[arg-type]


def _overlaid(text: str) -> bool:
    runs = text.split(",")
    return len(runs) <= MOST_OVERLAID and all(map(IDENTIFIER.fullmatch, runs))


def _pinned(text: str) -> bool:
    pins = text.split(",")
    return len(pins) <= MOST_PINS and all(map(PINNED.fullmatch, pins))


def _compared(text: str) -> bool:
    runs = text.split(",")
    return len(runs) == 2 and all(map(IDENTIFIER.fullmatch, runs))


def _is_name(text: str) -> bool:
    """Whether it may name something that is looked up, and is never a path."""
    return 0 < len(text) <= MOST_LETTERS and text.isprintable()


# What a text in the URL must be to be taken.
KNOWN: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("analysis", "run"), IDENTIFIER.fullmatch),
    **dict.fromkeys(("workload", "activation", "layer"), _is_name),
    "cost": (*COSTS, SEVERAL).__contains__,
    "fixed": FIXED.fullmatch,
    "table": DIGEST.fullmatch,
    "overlay": _overlaid,
    "bits": BITS.fullmatch,
    "abits": BITS.fullmatch,
    "sort": SORTS.__contains__,
    "locked": LOCKED.fullmatch,
    "alocked": LOCKED.fullmatch,
    "tied": TIED.fullmatch,
    "widths": WIDTHS.fullmatch,
    "pins": _pinned,
    "band": ("on",).__contains__,
    "compare": _compared,
    **dict.fromkeys(("network", "find"), _is_name),
    "kind": KINDS.__contains__,
    "state": STATES.__contains__,
    "data": ("full",).__contains__,
}

NAMES = frozenset(field.name for field in fields(View))  # of query parameters that are ours
