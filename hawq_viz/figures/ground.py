"""A figure that stays, and what is drawn over it anew at every click."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType
from plotly.io.json import to_json_plotly


@dataclass(frozen=True)
class Ground:
    """A figure as text, to which traces are added without making it again.

    To make and write a figure of a thousand points takes longer than a click may.
    """

    data: str  # its traces as JSON, without the brackets of their list
    layout: str

    @classmethod
    def of(cls, figure: go.Figure) -> Self:
        """A figure as it stands."""
        return cls(to_json_plotly(list(figure.data))[1:-1], to_json_plotly(figure.layout))

    def under(self, traces: Sequence[BaseTraceType]) -> str:
        """The figure with these traces over it, as JSON."""
        over = to_json_plotly(list(traces))[1:-1]
        data = ",".join(filter(None, (self.data, over)))
        return f'{{"data":[{data}],"layout":{self.layout}}}'
