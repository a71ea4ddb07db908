# Two images of the same locks: `train` runs the pipeline, its flows and their servers; `serve` answers with an exported
# model. They hold environments alone: the project is a folder mounted at /project, because DVC and git work on a checkout.
# docs/docker.md says how to build and run them.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS builder
WORKDIR /build
COPY requirements/main.txt requirements/serve.txt requirements/
# uv itself comes from the lock too, by its hash
RUN sed -n '/^uv==/,/[^\\]$/p' requirements/main.txt > uv.txt \
    && pip install --no-cache-dir --require-hashes --no-deps --requirement uv.txt \
    && uv venv --python "$(command -v python)" /opt/venv
ENV VIRTUAL_ENV=/opt/venv UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy

FROM builder AS train-builder
# cuda: the lock as it is. cpu: the same less the CUDA libraries, with the lock's torch and torchvision as PyTorch's own
# index builds them for CPUs; the lock has no hashes for these two wheels.
ARG TORCH=cpu
RUN --mount=type=cache,target=/root/.cache/uv \
    case "$TORCH" in \
    cuda) uv pip install --require-hashes --requirement requirements/main.txt ;; \
    cpu) awk '/^[^ ]/ { kept = /^nvidia-ml-py==/ || !/^(torch|torchvision|triton|cuda-.*|nvidia-.*)==/ } kept' \
          requirements/main.txt > cpu.txt \
        && uv pip install --require-hashes --no-deps --requirement cpu.txt \
        && sed -nE 's/^((torch|torchvision)==[^ ]+).*/\1/p' requirements/main.txt > torch.txt \
        && uv pip install --torch-backend cpu --no-deps --requirement torch.txt ;; \
    *) echo "TORCH: expected cpu or cuda, not '$TORCH'" >&2; exit 1 ;; \
    esac \
    && uv pip check \
    && cp requirements/main.txt /opt/venv/main.stamp
# The command `gcrl`, and imports from whatever folder, of the project that will be mounted at /project
COPY pyproject.toml README.md LICENSE /project/
RUN mkdir /project/components /project/pipelines \
    && touch /project/components/__init__.py /project/pipelines/__init__.py \
    && uv pip install --no-deps --editable /project

FROM builder AS serve-builder
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --require-hashes --requirement requirements/serve.txt

# Any `--user` may write to this home, and has a name (DVC asks for it). Nothing phones home.
FROM python:${PYTHON} AS runtime
RUN useradd --uid 1000 --home-dir /home/pipeline --no-create-home pipeline \
    && install --directory --mode=1777 /home/pipeline
ENV HOME=/home/pipeline \
    USER=pipeline \
    PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=true \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    HF_HUB_DISABLE_TELEMETRY=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false

FROM runtime AS serve
LABEL org.opencontainers.image.title="gcrl-serve" \
      org.opencontainers.image.description="Answers HTTP requests with a registered ONNX model: embedding, class probabilities, OOD score"
COPY --from=serve-builder /opt/venv /opt/venv
ENV MODEL_URI=models:/gcrl@champion
USER 1000
WORKDIR /home/pipeline
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/ping', timeout=4)"]
CMD ["sh", "-c", "exec mlflow models serve --model-uri \"$MODEL_URI\" --env-manager local --host 0.0.0.0 --port 8080"]

# Last, so that it is what `docker build .` makes.
FROM runtime AS train
LABEL org.opencontainers.image.title="gcrl-train" \
      org.opencontainers.image.description="Environment of the GCRL pipeline: DVC, Prefect, MLflow, torch"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=pipeline --group=pipeline /artifacts /project
COPY --from=train-builder /opt/venv /opt/venv
# `make` takes this environment instead of making one
ENV VENV=/opt/venv \
    PREFECT_SERVER_UI_STATIC_DIRECTORY=/tmp/prefect-ui
USER 1000
WORKDIR /project
CMD ["make", "run"]
