"""Methods: every definition in force, and with what the shown numbers were made."""

import streamlit as st

from dashboard import data, tables
from dashboard.widgets import ready_view, subtitle
from dashboard.words import FORMULAS, TERMS
from probing.metrics import Definition

view = ready_view()
st.title(f"Methods: {view.pair.arrow}")
subtitle(view)

st.subheader("An edge and its score")
st.markdown(
    "The residual stream of a decoder is a sum. The embedding, each attention block and each MLP *write* into it; "
    "query, key and value projections, MLPs and the head *read* it. An edge joins a writer O to a reader H that comes "
    "after it. Its score is the first-order estimate of what the loss would gain if H no longer saw O:"
)
st.latex(r"I(O \to H) = -\langle \nabla_H L,\; O \rangle")
st.markdown(
    "The product is summed over positions and width. L is the mean negative log-likelihood of the model's own greedy "
    "answer up to the cut. Gradients are taken before a reader's normalisation and through that reader alone."
)

st.subheader("Metrics")
for metric, formula in FORMULAS.items():
    with st.expander(TERMS[metric].name):
        st.markdown(TERMS[metric].meaning)
        st.latex(formula)
tables.parameters(Definition(), view)

st.subheader("What the numbers cannot say")
st.markdown(
    "- **Intensity follows confidence.** A model that is surer of its answer has smaller gradients, hence smaller "
    "scores; read intensity beside the loss.\n"
    "- **Intervals are over questions, not over training runs.** The control with another seed shows what retraining "
    "alone changes.\n"
    "- **Scores are first-order.** Where a softmax is saturated, removing an edge may do something else.\n"
    "- **Values of different families cannot be compared**, only the two models of a pair."
)

st.subheader("How the shown numbers were made")
tables.provenance(data.provenance(*view.keys))

st.subheader("How to cite")
st.markdown(
    "The method: Zhang, Hao, Xu and Li, *Reinforcement Learning Fine-Tuning Enhances Activation Intensity and "
    "Diversity in the Internal Circuitry of LLMs*, ICLR 2026, "
    "[arXiv:2509.21044](https://arxiv.org/abs/2509.21044). Edge attribution patching: Syed, Rager and Conmy, "
    "[arXiv:2310.10348](https://arxiv.org/abs/2310.10348)."
)
