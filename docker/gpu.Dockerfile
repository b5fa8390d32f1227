# ecrl with vLLM on NVIDIA GPUs. Built from the repository's root: docker build -f docker/gpu.Dockerfile -t ecrl:gpu .
# With CUDA's compiler, which kernels that are compiled at their first use need.
FROM nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.12-venv python3.12-dev gcc bubblewrap \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/venv/bin:$PATH
WORKDIR /opt/ecrl
# vLLM first: it says which torch and which CUDA libraries.
RUN python3.12 -m venv /opt/venv && pip install --no-cache-dir vllm==0.32.0
COPY . .
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[vllm,kernels,data,reasoning-gym,quantization]"

# Runs go to /app/runs: mount a folder there.
RUN useradd --create-home --uid 1001 ecrl && install --directory --owner ecrl /app
USER 1001
WORKDIR /app
ENTRYPOINT ["ecrl"]
CMD ["doctor"]
