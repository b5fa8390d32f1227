# ecrl on CPUs. Built from the repository's root: docker build -f docker/cpu.Dockerfile -t ecrl:cpu .
FROM python:3.11-slim

# The sandbox of programs that a policy wrote.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/ecrl
COPY constraints.txt ./
# Where PyTorch's wheels without CUDA are; with none given, torch brings several GB of CUDA's libraries.
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt ".[data,reasoning-gym]"

# Runs go to /app/runs: mount a folder there.
RUN useradd --create-home --uid 1001 ecrl && install --directory --owner ecrl /app
USER 1001
WORKDIR /app
ENTRYPOINT ["ecrl"]
CMD ["doctor"]
