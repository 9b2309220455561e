# One image for every accelerator: docker build --build-arg ACCELERATOR=cpu|cuda|tpu .
ARG PYTHON_VERSION=3.12
FROM python:${PYTHON_VERSION}-slim AS build
ARG ACCELERATOR=cpu
WORKDIR /src
RUN python -m venv /opt/chorus
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY server server
COPY prompts_store prompts_store
COPY clients clients
COPY base_model base_model
# `cpu` is the plain server; `cuda` and `tpu` are extras of the same name.
RUN extra=$([ "$ACCELERATOR" = cpu ] && echo server || echo "$ACCELERATOR") \
 && /opt/chorus/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ".[$extra,otel,postgresql,bucket]"

FROM python:${PYTHON_VERSION}-slim
RUN useradd --uid 10001 --create-home chorus && install -d -m 0700 -o chorus -g chorus /data
COPY --from=build /opt/chorus /opt/chorus
# Models from the hub and fingerprints go to the volume: the rest of a container may be read-only.
ENV PATH=/opt/chorus/bin:$PATH \
    XDG_CACHE_HOME=/data/cache \
    PYTHONUNBUFFERED=1 \
    CHORUS_DATA_DIR=/data \
    CHORUS_MODEL=embedded \
    CHORUS_HTTP_HOST=0.0.0.0 \
    CHORUS_HTTP_PORT=8000
USER chorus
VOLUME /data
EXPOSE 8000
# Liveness only: compiling a large model takes minutes, and a container must not be killed for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['CHORUS_HTTP_PORT']}/healthz\", timeout=2)"]
ENTRYPOINT ["chorus"]
CMD ["serve"]
