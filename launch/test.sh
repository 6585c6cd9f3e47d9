#!/usr/bin/env bash
# Lint and test. The first call makes the Python environment (see setup.sh): some minutes.
#   launch/test.sh                      everything but the tests marked slow
#   launch/test.sh --slow               these too, after the others
#   launch/test.sh tests/test_losses.py -k synergy
# Arguments go to pytest; -n 0 runs the tests in one process, as debuggers need. LSANET_TEST_WORKERS
# says how many run at once (default 2: most of their time is tracing, which uses one core).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
set_up requirements-test.txt requirements-sweep.txt

if ! installed requirements-torch.txt; then
  if run_pip --dry-run --retries=1 -r "$ROOT/requirements-torch.txt" >/dev/null 2>&1; then
    set_up requirements-test.txt requirements-sweep.txt requirements-torch.txt
  else
    say "warning: no PyTorch for CPU to be had (requirements-torch.txt says how);" \
      "the tests that compare with it are skipped"
  fi
fi

cd "$ROOT"
lint=0
"$PYTHON" -m ruff check --output-format=concise . || lint=$?
"$PYTHON" -m ruff format --check --output-format=concise . || lint=$?

tests=0
"$PYTHON" -m pytest -n "${LSANET_TEST_WORKERS:-2}" "$@" || tests=$?

if [[ $lint != 0 ]]; then say "ruff found something: see above, before the tests"; fi
exit $((tests != 0 ? tests : lint))
