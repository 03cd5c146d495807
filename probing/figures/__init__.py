"""Figures: numbers in, a Plotly figure out; nothing here knows Streamlit or PyTorch."""
