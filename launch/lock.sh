#!/usr/bin/env bash
# Write the locks again, from the dependencies in pyproject.toml (needs uv):
#   launch/lock.sh              keep the pinned versions, except where pyproject.toml rules them out
#   launch/lock.sh --upgrade    take the newest versions
# Other arguments go to `uv pip compile` as well, for example --upgrade-package=jax.
#
#   requirements-cpu.txt    every package that lsanet_jax needs, without CUDA
#   requirements.txt        the same versions, and CUDA 12 on Linux
#   requirements-sweep.txt  what sweeps need beside either: Ray
#   requirements-test.txt   what the tests and the checks before them need beside either
#   requirements-docs.txt   what the documentation needs beside these
#   requirements-torch.txt  PyTorch for CPU, which some tests compare with; edited by hand
#
# Each is to be installed with `pip install --no-deps -r`: what is in it is all there is. Python 3.11
# has the newest jax and flax that still support it, Python 3.12 and later the newest there are.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

compile() {
  uv pip compile --quiet --universal --annotation-style=line \
    --custom-compile-command=launch/lock.sh "$@"
}

compile "$@" pyproject.toml -o requirements-cpu.txt
compile "$@" pyproject.toml --extra=cuda12 -c requirements-cpu.txt -o requirements.txt

# Usage: compile_extra EXTRA UV_FLAGS... What an extra of pyproject.toml needs beside the package.
compile_extra() {
  local extra=$1
  shift
  uv run --quiet --no-project python -c '
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"][sys.argv[1]], sep="\n")
' "$extra" | compile "$@" - -c requirements-cpu.txt -o "requirements-$extra.txt"
}

compile_extra sweep -c requirements-torch.txt "$@" # both can be installed
compile_extra test "$@"
compile_extra docs -c requirements-test.txt -c requirements-sweep.txt -c requirements-torch.txt "$@"
