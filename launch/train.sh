#!/usr/bin/env bash
# Train. The first call makes the Python environment (see setup.sh), which takes some minutes.
#   launch/train.sh                     trains the quickstart into runs/quickstart of the repository
#   launch/train.sh --config=resnet18 --workdir=runs/r18 --config.model.objective=dsn
#   launch/train.sh --help
# The flags are those of `lsanet train`. Paths are relative to the folder that you call it from.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck disable=SC2119 # the flags are not for set_up
set_up

if [[ $# == 0 ]]; then
  set -- --config=quickstart "--workdir=$ROOT/runs/quickstart"
  say "no flags given, using $*"
fi

export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" -m lsanet_jax.main "$@"
