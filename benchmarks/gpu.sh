#!/usr/bin/env bash
# The first hour with a GPU, in 8 minutes: what works, what is the same in two runs, what is fast.
#   benchmarks/gpu.sh [--minutes=8 --output=gpu.json]
# Needs the packages of requirements.txt; PyTorch with CUDA, if installed, is the peer.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || true
exec "${PYTHON:-python}" -m benchmarks.gpu "$@"
