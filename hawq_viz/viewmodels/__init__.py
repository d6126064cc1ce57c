"""What the pages say, worked out from results as plain values: no Streamlit, no Plotly.

studies   one analysis over one cost, and the plan that is picked
plans     one plan in words and tables
runs      any run: its state, how far it is, what to do next
analyses  how the traces were found
activations   the tensors that layers read
measured  what rounding alone was measured to leave
training  fine-tuning: what it is told, how it goes, what it brought
uploads   files that come through the browser
"""

from hawq_viz.viewmodels.plans import summarize as summarize
from hawq_viz.viewmodels.studies import Study as Study
