"""A figure that stays, and what is drawn over it anew at every click."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType
from plotly.io.json import to_json_plotly

Trace = BaseTraceType | Mapping[str, Any]


@dataclass(frozen=True)
class Overlaid:
    """A figure in two parts, so that a page need not draw the first again for the second."""

    ground: str  # a figure as JSON, whose axes have ranges: nothing over it moves them
    over: str  # a list of traces as JSON

    def to_json(self) -> str:
        """The whole figure."""
        figure = json.loads(self.ground)
        return json.dumps({**figure, "data": figure["data"] + json.loads(self.over)})


@dataclass(frozen=True)
class Ground:
    """A figure as text, to which traces are added without making it again.

    To make and write a figure of a thousand points takes longer than a click may.
    """

    figure: str

    @classmethod
    def of(cls, figure: go.Figure) -> Self:
        """A figure as it stands."""
        return cls(figure.to_json())

    def under(self, traces: Sequence[Trace]) -> Overlaid:
        """The figure with these traces over it."""
        return Overlaid(self.figure, to_json_plotly(list(traces)))
