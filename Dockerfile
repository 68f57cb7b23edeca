# The environment of `make setup` in a container: make docker-build, docker-run, docker-exec.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

RUN apt-get update \
  && apt-get install --yes --no-install-recommends git make \
  && rm -rf /var/lib/apt/lists/*

# A user, by default the first of most machines, so that files in mounted folders are theirs.
ARG USER_ID=1000
RUN useradd --create-home --uid "$USER_ID" user && install --directory --owner user /app /app/data /app/outputs
USER user
WORKDIR /app

# What the environment is made from comes first: code that changes does not make it anew. For GPUs the CUDA
# libraries come with torch, and the driver from the host.
COPY --chown=user Makefile pyproject.toml ./
COPY --chown=user requirements requirements
ARG TORCH=cuda
ARG TORCH_INDEX=
RUN UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 make setup TORCH="$TORCH" TORCH_INDEX="$TORCH_INDEX"

COPY --chown=user . .
ENV PATH=/app/.venv/bin:$PATH
CMD ["python", "-m", "src.doctor"]
