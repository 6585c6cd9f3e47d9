#!/usr/bin/env bash
# Train with several processes on this machine, to try on a laptop what a cluster does.
#   launch/local.sh -n 2                                 trains the quickstart, as launch/train.sh
#   launch/local.sh -n 2 --devices_per_process=2 --config=resnet18 --workdir=runs/r18
# The other flags are those of launch/train.sh. GPUs, those of CUDA_VISIBLE_DEVICES (default: all),
# are split evenly. Without GPUs, or with JAX_PLATFORMS=cpu, each process has --devices_per_process
# virtual CPU devices (default: 1).
#
# Each line of output begins with the number of its process. The exit code is that of the first
# process that failed. The others then get SIGTERM, and are killed after half a minute; but if that
# code is 75 (stopped by a signal, state saved), they are saving too, and may finish. SIGINT (Ctrl-C)
# and SIGTERM are passed on to all processes, which have LSANET_GRACE seconds (default: 120) to save
# and end; a second signal kills them.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

count='' devices=0 flags=()
while [[ $# != 0 ]]; do
  case $1 in
    -n) count=${2:-} && shift ;;
    --devices_per_process=*) devices=${1#*=} ;;
    *) flags+=("$1") ;;
  esac
  shift || true
done
[[ $count =~ ^[1-9][0-9]*$ ]] || fail "-n N is missing: set the number of processes, such as -n 2"
[[ $devices =~ ^[0-9]+$ ]] || fail "--devices_per_process=$devices must be an integer >= 0"
[[ ${LSANET_GRACE:=120} =~ ^[0-9]+$ ]] || fail "LSANET_GRACE=$LSANET_GRACE must be a whole number of seconds"
# shellcheck disable=SC2119 # the flags are not for set_up
set_up

if [[ ${#flags[@]} == 0 ]]; then
  flags=("--config=$ROOT/configs/quickstart.py" "--workdir=$ROOT/runs/quickstart")
  say "no flags given, using ${flags[*]}"
fi

exec "$PYTHON" -I - "$count" "$devices" "$LSANET_GRACE" "$ROOT/launch/train.sh" "${flags[@]}" <<'PYTHON'
import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

PREEMPTED = 75
COUNT, DEVICES, GRACE = map(int, sys.argv[1:4])
COMMAND = sys.argv[4:]


def say(message):
    print(f"lsanet: {message}", file=sys.stderr, flush=True)


def find_gpus():
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        try:
            listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
        except OSError:
            return []
        visible = ",".join(str(i) for i in range(listed.count("GPU ")))
    return [gpu for gpu in visible.split(",") if gpu not in ("", "-1")]


def share(gpus, i):
    """Return the variables that give process i its devices."""
    if not gpus:
        return {"JAX_NUM_CPU_DEVICES": str(DEVICES or 1)}
    each = DEVICES or len(gpus) // COUNT
    if each * COUNT > len(gpus) or not DEVICES and each * COUNT != len(gpus):
        say(
            f"error: {len(gpus)} GPUs cannot be split evenly over {COUNT} processes; "
            "use --devices_per_process=K to give each K, or JAX_PLATFORMS=cpu to train without"
        )
        sys.exit(1)
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[i * each : (i + 1) * each])}


def copy(i, source, target):
    for line in source:  # a carriage return, as of progress bars, ends a line too
        if line.strip():
            with printing:
                target.write(f"[{i}] {line.rstrip()}\n")
                target.flush()


def send(number):
    for process in running.values():
        process.send_signal(number)


def kill():
    for process in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def pass_on(number, frame):
    global deadline, interrupted
    now = time.monotonic()
    if interrupted and now - interrupted < 1:
        return  # the same signal: `timeout`, for instance, signals its child and then the whole group
    if interrupted:
        kill()
    interrupted, deadline = now, now + GRACE
    send(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


running, ended, copiers, printing = {}, queue.Queue(), [], threading.Lock()
deadline, interrupted, exit_code = float("inf"), None, 0
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, pass_on)

with socket.create_server(("127.0.0.1", 0)) as server:
    coordinator = f"127.0.0.1:{server.getsockname()[1]}"
environments = [share(find_gpus(), i) for i in range(COUNT)]
for i in range(COUNT):
    if interrupted:
        break
    process = subprocess.Popen(
        [*COMMAND, f"--coordinator={coordinator}", f"--num_processes={COUNT}", f"--process_id={i}"],
        env={**os.environ, "JAX_COORDINATOR_BIND_ADDRESS": coordinator, **environments[i]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,  # so that Ctrl-C reaches it through pass_on only
    )
    running[i] = process
    for streams in (process.stdout, sys.stdout), (process.stderr, sys.stderr):
        copiers.append(threading.Thread(target=copy, args=(i, *streams), daemon=True))
        copiers[-1].start()
    threading.Thread(
        target=lambda i=i, process=process: ended.put((i, process.wait())), daemon=True
    ).start()

while running:
    try:
        i, code = ended.get(timeout=0.5)
    except queue.Empty:
        if time.monotonic() > deadline:
            kill()
        continue
    del running[i]
    if code < 0:
        code = 128 - code  # ended by a signal: the code that a shell returns
    if code and not exit_code:
        exit_code = code
        say(f"process {i} ended with exit code {code}")
        if not interrupted:
            deadline = time.monotonic() + (GRACE if code == PREEMPTED else 30)
            if code != PREEMPTED:
                send(signal.SIGTERM)
for copier in copiers:
    copier.join(timeout=5)
sys.exit(exit_code)
PYTHON
