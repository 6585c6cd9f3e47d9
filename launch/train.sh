#!/usr/bin/env bash
# Train. The first call makes the Python environment (see setup.sh): some minutes.
#   launch/train.sh                     the quickstart, into runs/quickstart of the repository
#   launch/train.sh --config=configs/resnet18.py --workdir=runs/r18 --config.model.objective=dsn
#   launch/train.sh --help
# The flags are those of `python -m lsanet_jax.main`. Paths are relative to the folder you call
# from; a --config that is not there is looked for in the repository.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck disable=SC2119 # not the flags: no lock beside the own one
set_up

if [[ $# == 0 ]]; then
  set -- "--config=$ROOT/configs/quickstart.py" "--workdir=$ROOT/runs/quickstart"
  say "no flags given: $*"
fi

flags=()
for flag; do
  if [[ $flag == --config=* ]]; then
    config=${flag#--config=}
    file=${config%%:*} # a config's argument may follow a colon
    if [[ ! -e $file && -e $ROOT/$file ]]; then flag=--config=$ROOT/$config; fi
  fi
  flags+=("$flag")
done

export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" -m lsanet_jax.main "${flags[@]}"
