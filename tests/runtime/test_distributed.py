import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import jax
import pytest
import yaml

from lsanet_jax.errors import ConfigError, TrainingError
from lsanet_jax.runtime import distributed
from tests.conftest import ROOT

LAUNCH = ROOT / "launch"


@pytest.fixture(autouse=True)
def lone_process(monkeypatch):
    """No launcher's variables; jax's settings and the loggers are put back."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "JAX_COORDINATOR_", "JAX_LOCAL_DEVICE_IDS")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    monkeypatch.setenv("grpc_proxy", "")
    logger = logging.getLogger("lsanet_jax")
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler()])
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def calls(monkeypatch):
    """The arguments of each call of jax.distributed.initialize, which does nothing."""
    made = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: made.append(arguments))
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def slurm_step(monkeypatch, *, tasks, nodes, gpus="0,1,2,3", rank=0):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_NTASKS", "4")  # of the job
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", str(tasks))
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", str(nodes))
    monkeypatch.setenv("SLURM_PROCID", str(rank))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)


# ---------------------------------------------------------------------------------- the flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 2, 0), "--coordinator is missing"),
        (("a:1", None, 0), "--num_processes is missing"),
        (("a:1", 2, None), "--process_id is missing"),
        ((None, None, 0), "--coordinator is missing"),
        (("", 2, 0), "--coordinator="),
        (("machine", 2, 0), "--coordinator=machine is not HOST:PORT"),
        ((":1", 2, 0), "--coordinator=:1"),
        (("machine:", 2, 0), "--coordinator=machine:"),
        (("machine:0", 2, 0), "--coordinator=machine:0"),
        (("machine:65536", 2, 0), "from 1 to 65535"),
        (("http://machine:80", 2, 0), "--coordinator=http"),
        (("a:1", 0, 0), "--num_processes=0"),
        (("a:1", 2, 2), "--process_id=2: expected 0 to 1"),
        (("a:1", 2, -1), "--process_id=-1"),
    ],
)
def test_wrong_flags_are_named(calls, arguments, message):
    with pytest.raises(ConfigError, match=message):
        distributed.initialize(*arguments)
    assert not calls


def test_flags_switch_off_detection(calls, monkeypatch):
    slurm_step(monkeypatch, tasks=4, nodes=1)
    distributed.initialize("[::1]:8476", 3, 1)
    (arguments,) = calls
    assert arguments["coordinator_address"] == "[::1]:8476"
    assert (arguments["num_processes"], arguments["process_id"]) == (3, 1)
    assert arguments["cluster_detection_method"] == "deactivate"
    assert arguments["heartbeat_timeout_seconds"] <= 60


def test_a_port_in_use_is_an_error_of_process_0(calls):
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on port {port}"):
            distributed.initialize(f"localhost:{port}", 2, 0)
        assert not calls
        distributed.initialize(f"localhost:{port}", 2, 1)


# ---------------------------------------------------------------------------------- detection


def test_nothing_happens_to_a_lone_process(calls):
    distributed.initialize(None, None, None)
    distributed.initialize("machine:1", 1, 0)
    assert not calls


@pytest.mark.parametrize("variable", ["SLURM_NTASKS", "SLURM_JOB_NUM_NODES"])
def test_nothing_happens_in_an_allocation_without_srun(calls, monkeypatch, variable):
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv(variable, "4")
    distributed.initialize(None, None, None)
    assert not calls


def test_a_launchers_variable_that_is_no_number_is_named(calls, monkeypatch):
    slurm_step(monkeypatch, tasks="many", nodes=1)
    with pytest.raises(ConfigError, match="SLURM_STEP_NUM_TASKS is 'many', expected an integer"):
        distributed.initialize(None, None, None)
    assert not calls


def test_nothing_happens_in_a_slurm_step_of_one_task(calls, monkeypatch):
    slurm_step(monkeypatch, tasks=1, nodes=1)
    distributed.initialize(None, None, None)
    assert not calls


@pytest.mark.parametrize(
    ("step", "devices"),
    [
        ({"tasks": 2, "nodes": 2}, [0, 1, 2, 3]),
        ({"tasks": 8, "nodes": 2}, None),  # left to jax: one by number
        ({"tasks": 8, "nodes": 2, "gpus": "3"}, [0]),  # bound by Slurm
        ({"tasks": 2, "nodes": 2, "gpus": ""}, None),
    ],
)
def test_a_slurm_task_takes_its_gpus(calls, monkeypatch, step, devices):
    slurm_step(monkeypatch, **step)
    distributed.initialize(None, None, None)
    (arguments,) = calls
    assert arguments["local_device_ids"] == devices
    assert "coordinator_address" not in arguments


@pytest.mark.parametrize(
    ("on_the_node", "visible", "devices"),
    [
        (1, None, [0, 1, 2, 3]),
        (1, "2,3", [0, 1]),
        (2, None, None),  # left to jax: one by number
        (2, "3", [0]),  # shown its own only
        (1, "", None),
    ],
)
def test_an_open_mpi_process_takes_its_gpus(calls, monkeypatch, on_the_node, visible, devices):
    monkeypatch.setattr(distributed, "_count_gpus", lambda: 4)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", str(on_the_node))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    distributed.initialize(None, None, None)
    (arguments,) = calls
    assert arguments["local_device_ids"] == devices


def test_a_launcher_that_jax_cannot_ask_is_one_error(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")  # Open MPI 5 names no coordinator
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    with pytest.raises(TrainingError, match="process 1 of 2 .* --coordinator.* Open MPI"):
        distributed.initialize(None, None, None)


@pytest.mark.parametrize(
    ("process_id", "lines"),
    [
        (0, ["2 processes are connected", "an info", "a warning"]),
        (1, ["process 1: a warning"]),
    ],
)
def test_only_process_0_logs_infos(calls, capsys, process_id, lines):
    logger = logging.getLogger("lsanet_jax")
    logger.handlers = [logging.StreamHandler()]
    logger.setLevel(logging.INFO)
    distributed.initialize(f"localhost:{free_port()}", 2, process_id)
    logger.getChild("train").info("an info")
    logger.getChild("train").warning("a warning")
    assert capsys.readouterr().err.splitlines() == lines


# ---------------------------------------------------------------------------------- connecting

TRAIN = textwrap.dedent("""
    import sys, types
    from absl import app
    import lsanet_jax
    from lsanet_jax import main
    from lsanet_jax.runtime import distributed

    def train_and_evaluate(config, workdir):
        import jax, numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        sharding = NamedSharding(Mesh(jax.devices(), "data"), PartitionSpec("data"))
        array = jax.make_array_from_callback((8,), sharding, lambda i: np.arange(8.0)[i])
        counts = len(jax.local_devices()), jax.device_count()
        print(*counts, float(array.sum()))  # the last line: gloo prints too

    distributed.START_TIMEOUT = 60
    lsanet_jax.train = types.SimpleNamespace(train_and_evaluate=train_and_evaluate)
    sys.modules["lsanet_jax.train"] = lsanet_jax.train
    app.run(main.main, flags_parser=main.parse_flags)
""")
FLAGS = ["--config=configs/quickstart.py", "--workdir=unused"]


def start(*flags, program=TRAIN, **variables):
    return subprocess.Popen(
        [sys.executable, "-c", program, *FLAGS, *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "2", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outputs(processes):
    try:
        return [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()


def test_two_processes_sum_over_their_devices():
    coordinator = f"--coordinator=127.0.0.1:{free_port()}"
    unusable = "http://127.0.0.1:9"  # a proxy is not for the processes
    processes = [
        start(coordinator, "--num_processes=2", f"--process_id={i}", http_proxy=unusable)
        for i in range(2)
    ]
    (out0, err0), (out1, err1) = outputs(processes)
    assert [out.splitlines()[-1:] for out in (out0, out1)] == [["2 4 28.0"]] * 2, err0 + err1
    assert [process.returncode for process in processes] == [0, 0]
    assert "2 processes are connected" in err0
    assert "connected" not in err1


def test_slurm_is_asked_for_the_coordinator():
    step = {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    processes = [start(**step, SLURM_PROCID=i, SLURM_LOCALID=i) for i in "01"]
    (out0, err0), (out1, err1) = outputs(processes)
    assert [out.splitlines()[-1:] for out in (out0, out1)] == [["2 4 28.0"]] * 2, err0 + err1


def test_an_unreachable_coordinator_is_one_error():
    program = TRAIN.replace("START_TIMEOUT = 60", "START_TIMEOUT = 1")
    coordinator = f"--coordinator=127.0.0.1:{free_port()}"
    process = start(coordinator, "--num_processes=2", "--process_id=1", program=program)
    ((_, err),) = outputs([process])
    assert process.returncode == 2, err
    assert err.startswith(f"error: process 1 gave up after 1 s: {coordinator} cannot be reached")
    assert len(err.splitlines()) == 1


def test_a_missing_process_is_an_error(monkeypatch):
    monkeypatch.setattr(distributed, "START_TIMEOUT", 0.1)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: time.sleep(1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TrainingError, match="answers, but not all of --num_processes=3 came"):
            distributed.initialize(coordinator, 3, 1)


# ---------------------------------------------------------------------------------- launch/


@pytest.mark.parametrize("name", sorted(p.name for p in LAUNCH.glob("*.s*")))
def test_launch_scripts_parse(name):
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)


@pytest.fixture
def local(tmp_path):
    """Returns a function that starts local.sh, which runs `program` instead of the training."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".lsanet").mkdir()  # an environment as setup.sh leaves it
    lock = (ROOT / "requirements-cpu.txt").read_text()
    (tmp_path / ".lsanet/requirements-cpu.txt").write_text(lock)
    python = tmp_path / "bin/python"
    python.write_text(
        "#!/usr/bin/env bash\n"
        '[[ $* != *lsanet_jax.main* ]] || set -- -c "$PROGRAM" "${@:3}"\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)

    def start(*flags, program, **variables):
        return subprocess.Popen(
            [LAUNCH / "local.sh", *flags],
            env={
                **os.environ,
                "LSANET_VENV": str(tmp_path),
                "LSANET_LOCK": "requirements-cpu.txt",
                "PROGRAM": "import os, signal, sys, time\n" + textwrap.dedent(program),
                "JAX_PLATFORMS": "",
                "CUDA_VISIBLE_DEVICES": "",
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


SHOW = "print(sys.argv[1:-3], sys.argv[-2:], *map(os.environ.get, sys.argv[2].split(',')))"


def test_local_numbers_the_lines_and_gives_cpu_devices(local):
    variables = "JAX_NUM_CPU_DEVICES,CUDA_VISIBLE_DEVICES"
    process = local("-n", "2", "--devices_per_process=3", "--x=1", variables, program=SHOW)
    ((out, _),) = outputs([process])
    flags = f"['--x=1', '{variables}'] ['--num_processes=2', '--process_id="
    assert sorted(out.splitlines()) == [f"[{i}] {flags}{i}'] 3" for i in "01"]
    assert process.returncode == 0


def test_local_splits_the_gpus(local):
    flags = ["--x=1", "CUDA_VISIBLE_DEVICES"]
    process = local("-n", "2", *flags, program=SHOW, CUDA_VISIBLE_DEVICES="4,5,6,7")
    ((out, _),) = outputs([process])
    assert [line.split()[-1] for line in sorted(out.splitlines())] == ["4,5", "6,7"]
    process = local("-n", "2", *flags, program=SHOW, CUDA_VISIBLE_DEVICES="4,5,6")
    ((_, err),) = outputs([process])
    assert (process.returncode, "3 GPUs cannot be split" in err) == (1, True)


def test_local_ends_the_others_when_one_fails(local):
    program = """
        if sys.argv[-1] == "--process_id=1":
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    """
    process = local("-n", "3", program=program)
    ((_, err),) = outputs([process])
    assert process.returncode == 128 + signal.SIGKILL
    assert "process 1 ended with exit code 137" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_local_passes_signals_on_so_that_all_can_save(local, number):
    program = """
        def save(number, frame):
            os.write(1, f"saved on {number}\\n".encode())  # print may be under way
            os._exit(75)

        signal.signal(signal.SIGINT, save)
        signal.signal(signal.SIGTERM, save)
        print("ready", flush=True)
        time.sleep(60)
    """
    process = local("-n", "2", program=program)
    ready = {process.stdout.readline() for _ in range(2)}
    assert ready == {"[0] ready\n", "[1] ready\n"}
    process.send_signal(number)
    ((out, _),) = outputs([process])
    assert sorted(out.splitlines()) == [f"[{i}] saved on {int(number)}" for i in range(2)]
    assert process.returncode == 75


def test_the_kubernetes_job_starts_what_the_flags_need():
    _, service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    spec, name = job["spec"], job["metadata"]["name"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    coordinator, num_processes, process_id = container["args"][:3]
    assert coordinator.startswith(f"--coordinator={name}-0.{pod['subdomain']}:")
    assert num_processes == f"--num_processes={spec['completions']}"
    assert process_id == "--process_id=$(JOB_COMPLETION_INDEX)"
    assert pod["restartPolicy"] == "Never"
    preempted, disrupted = spec["podFailurePolicy"]["rules"]
    assert preempted["action"] == disrupted["action"] == "Ignore"
    assert preempted["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [75],
    }
    assert disrupted["onPodConditions"][0]["type"] == "DisruptionTarget"
