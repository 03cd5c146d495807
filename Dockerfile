# The dashboard, with the results of the pairs that ship. CPU by default; for CUDA:
#   --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
FROM python:3.11-slim AS program

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /app
COPY requirements.txt constraints.txt ./
# Only torch comes from PyTorch's index: what else stands there under the names of our packages is not looked at.
# Then what nothing here uses is taken away: the packages' tests, headers and parts for Jupyter, torch's test programs,
# and pyarrow's RPC.
RUN pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" \
        "$(grep -o '^torch==[0-9.]*' requirements.txt)+$(basename "$TORCH_INDEX")" \
    && pip install --no-cache-dir -r requirements.txt -c constraints.txt \
    && cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && find . -type d -name tests -prune -exec rm -r {} + \
    && rm -rf torch/test torch/include pyarrow/include pyarrow/*flight* \
        plotly/labextension pydeck/nbextension \
    && find torch/bin -type f ! -name torch_shm_manager -delete

COPY . .
RUN python -m compileall -q . \
    && useradd --uid 1000 --create-home explorer && mkdir /data && chown explorer /data
USER explorer
# Only /data is written to, so that the rest of the file system can be read-only.
ENV PROBING_MODE=hosted PROBING_STORE=/data/store.duckdb PROBING_LOG=json \
    HOME=/data HF_HOME=/data/huggingface TMPDIR=/data \
    MALLOC_ARENA_MAX=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME /data
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
CMD ["streamlit", "run", "app.py", "--server.address=0.0.0.0"]


# Every number that the demo shows is computed here, from the models in the repository.
FROM program AS results
RUN python -m probing prepare --store /tmp/store.duckdb \
    && python -m probing snapshot --store /tmp/store.duckdb --out /tmp/snapshot.duckdb


FROM program
COPY --from=results --chown=explorer /tmp/snapshot.duckdb snapshot.duckdb
ENV PROBING_SNAPSHOT=/app/snapshot.duckdb
