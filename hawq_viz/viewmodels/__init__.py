"""What the pages say, worked out from results as plain values: no Streamlit, no Plotly.

plans     one plan and its frontier
runs      any run: its state, how far it is, what to do next
analyses  how the traces were found
measured  what rounding alone was measured to leave
training  fine-tuning: what it is told, how it goes, what it brought
"""

from hawq_viz.viewmodels.plans import Study as Study
from hawq_viz.viewmodels.plans import summarize as summarize
