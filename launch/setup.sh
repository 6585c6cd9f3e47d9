# shellcheck shell=bash
# For the scripts beside it to source. set_up makes the Python environment on first use, and makes
# it again when its lock has changed or an earlier installation was cut short. Optional variables:
#   LSANET_VENV     where the environment lies (default: .venv in the repository)
#   LSANET_LOCK     the lock to install: requirements.txt (with CUDA) or requirements-cpu.txt
#                   (default: the first where nvidia-smi works or where it is installed already,
#                   else the second)
#   LSANET_PYTHON   the Python to use (default: python3.12, python3.11, python3.13 or python3)

ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${LSANET_VENV:-$ROOT/.venv}
[[ $VENV == /* ]] || VENV=$PWD/$VENV
PYTHON=$VENV/bin/python

# In the environment: a copy of each lock whose installation is complete, and a file that is there
# while pip is at work. A copy is written last, so half an installation is never taken for a whole
# one.
DONE=$VENV/.lsanet
UNFINISHED=$DONE/unfinished

say() { printf 'lsanet: %s\n' "$*" >&2; }
fail() {
  say "error: $*"
  exit 1
}

# Usage: set_up [LOCK...]. The locks are those to install beside the package's own.
set_up() {
  local lock extra
  lock=$(choose_lock) || exit 1
  ready "$lock" "$@" && return

  if ! mkdir -p "$(dirname "$VENV")" || [[ ! -w $(dirname "$VENV") ]]; then
    fail "cannot write to $(dirname "$VENV"); LSANET_VENV can name another place"
  fi
  (
    if command -v flock >/dev/null && ! flock --nonblock 9; then
      say "waiting for another process that is setting up $VENV"
      flock 9
    fi
    ready "$lock" || make_environment "$lock"
    for extra; do installed "$extra" || pip_install "$extra"; done
  ) 9>"$VENV.lock" || exit 1
}

# Usage: ready LOCK...
ready() {
  local lock
  [[ ! -e $UNFINISHED ]] && "$PYTHON" -I -c '' 2>/dev/null || return 1
  for lock; do installed "$lock" || return 1; done
}

installed() { [[ -f $DONE/$1 && $(<"$DONE/$1") == "$(<"$ROOT/$1")" ]]; }

choose_lock() {
  local lock=requirements-cpu.txt
  if [[ -n ${LSANET_LOCK:-} ]]; then
    lock=$LSANET_LOCK
    [[ -f $ROOT/$lock ]] || fail "LSANET_LOCK=$lock: $ROOT has no such file"
  elif [[ $(uname -sm) == 'Linux x86_64' ]] && nvidia-smi >/dev/null 2>&1; then
    lock=requirements.txt
  elif installed requirements.txt; then # a cluster's login node, say, without a GPU of its own
    lock=requirements.txt
  fi
  printf '%s' "$lock"
}

# Always from scratch: what a lock no longer names, or a killed pip left behind, must not stay.
make_environment() {
  local python
  if [[ -n $(ls -A "$VENV" 2>/dev/null) && ! -d $DONE ]]; then
    fail "$VENV was not made by this script, which would replace it: remove it yourself, or name" \
      "another place for the environment in LSANET_VENV"
  fi
  python=$(find_python) || exit 1
  say "making an environment in $VENV with $("$python" --version)"
  # What marks the folder as this script's, and as unfinished, has to outlive a kill at any point.
  mkdir -p "$DONE"
  : >"$UNFINISHED" || fail "cannot write to $VENV"
  rm -f "$DONE"/*.txt
  find "$VENV" -mindepth 1 -maxdepth 1 ! -path "$DONE" -exec rm -rf {} +
  "$python" -m venv "$VENV" >&2 || fail "$python -m venv $VENV did not work"
  pip_install "$1"
}

# Prints the first Python that will do. Each is tried: a command of that name may be a mere stub.
find_python() {
  local candidates=(python3.12 python3.11 python3.13 python3 python) candidate version found=''
  [[ -z ${LSANET_PYTHON:-} ]] || candidates=("$LSANET_PYTHON")
  for candidate in "${candidates[@]}"; do
    version=$("$candidate" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
      continue
    found+="${found:+, }$candidate is $version"
    case $version in
      3.11 | 3.12 | 3.13)
        if "$candidate" -I -c 'import ensurepip, venv' 2>/dev/null; then
          printf '%s' "$candidate"
          return
        fi
        found+=" but has no venv module (on Debian and Ubuntu: apt install python$version-venv)"
        ;;
    esac
  done
  fail "no Python 3.11, 3.12 or 3.13 with its venv module; found: ${found:-no Python at all}." \
    "Install one, or name one in LSANET_PYTHON"
}

# Usage: pip_install LOCK
pip_install() {
  local output cause
  say "installing $1 into $VENV (once; takes some minutes)"
  : >"$UNFINISHED"
  if output=$(run_pip -r "$ROOT/$1" 2>&1); then
    if cp "$ROOT/$1" "$DONE/$1" && rm "$UNFINISHED"; then return; fi
    fail "cannot write to $DONE"
  fi
  case $output in
    *'No space left'*) cause="the disk is full where $VENV, pip's cache or TMPDIR lies" ;;
    *'name resolution'* | *'Failed to establish'* | *'onnection refused'* | *'timed out'* | *Proxy*)
      cause="the package index cannot be reached; check the network and pip's settings"
      ;;
    *) cause=$(grep -i error <<<"$output" | tail -n 1) ;;
  esac
  fail "pip could not install $1: ${cause:-$(tail -n 1 <<<"$output")}"
}

# Usage: run_pip FLAGS. With -I, what PYTHONPATH and the user's own site-packages offer does not
# count as installed.
run_pip() {
  PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 "$PYTHON" -I -m pip install \
    --no-deps --no-input --progress-bar=off "$@"
}
