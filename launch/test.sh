#!/usr/bin/env bash
# Lint, check the types, build the documentation and test. The first call makes the Python
# environment (see setup.sh): some minutes.
#   launch/test.sh                      everything but the tests marked slow
#   launch/test.sh --slow               these too, after the others
#   launch/test.sh tests/test_losses.py -k synergy
# Arguments go to pytest; -n 0 runs the tests in one process, as debuggers need. LSANET_TEST_WORKERS
# says how many run at once (default 2: most of their time is tracing, which uses one core).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
locks=(requirements-test.txt requirements-docs.txt requirements-sweep.txt)
set_up "${locks[@]}"

if ! installed requirements-torch.txt; then
  if run_pip --dry-run --retries=1 -r "$ROOT/requirements-torch.txt" >/dev/null 2>&1; then
    set_up "${locks[@]}" requirements-torch.txt
  else
    say "warning: PyTorch for CPU is not available (requirements-torch.txt says how to get it);" \
      "the tests that compare with it are skipped"
  fi
fi

cd "$ROOT"
failed=()
# Usage: check NAME COMMAND...
check() {
  "${@:2}" || failed+=("$1")
}
check "ruff check" "$PYTHON" -m ruff check --output-format=concise .
check "ruff format" "$PYTHON" -m ruff format --check --output-format=concise .
export PYRIGHT_PYTHON_IGNORE_WARNINGS=1 NO_MKDOCS_2_WARNING=1 # about versions other than the locked
check pyright "$PYTHON" -m pyright --pythonpath "$PYTHON"
check mkdocs "$PYTHON" -m mkdocs build --strict --quiet

tests=0
"$PYTHON" -m pytest -n "${LSANET_TEST_WORKERS:-2}" "$@" || tests=$?

# Bash before 4.4 calls an empty array unset.
for name in ${failed[@]+"${failed[@]}"}; do
  say "$name found something: see above, before the tests"
done
[[ $tests == 0 ]] || exit "$tests"
[[ ${#failed[@]} == 0 ]]
