# The dashboard with its worker. CPU by default; for CUDA: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN useradd --create-home --uid 1000 explorer && mkdir /data && chown explorer /data
WORKDIR /app

COPY requirements.txt .
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" \
        "$(grep -o '^torch==[0-9.]*' requirements.txt)+$(basename "$TORCH_INDEX")" \
    && pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -r requirements.txt

COPY --chown=explorer . .

USER explorer
ENV HOME=/home/explorer HF_HOME=/data/huggingface PROBING_STORE=/data/store.duckdb PROBING_MODE=hosted \
    PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://localhost:8501/_stcore/health', timeout=4)"]
CMD ["streamlit", "run", "app.py", "--server.address=0.0.0.0"]
