import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
from tiny_training import tiny_train

SCRIPT = pathlib.Path(__file__).with_name("two_process_training.py")


def run_two(workdir, quick, *arguments) -> list[subprocess.CompletedProcess]:
    """Two processes of four devices each, to the end."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(SCRIPT.parents[2]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=4 {quick}",
    }
    running = [
        subprocess.Popen(
            [sys.executable, SCRIPT, workdir, address, str(index), *arguments],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=1200)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, output)
        for process, output in zip(running, outputs, strict=True)
    ]


def losses(workdir) -> list[float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_two_processes_train_as_one_and_one_goes_on_from_their_checkpoint(tmp_path, quick):
    for process in run_two(tmp_path / "two", quick):
        assert process.returncode == 0, process.stdout
    one = tiny_train(tmp_path / "one", mesh=(2, 2, 2))
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), atol=1e-6)
    again = tiny_train(tmp_path / "two", mesh=(1, 1, 1))
    assert (again.step, again.compiles) == (one.step, 0)


def test_sigterm_to_one_process_stops_both_at_one_step(tmp_path, quick):
    processes = run_two(tmp_path, quick, "3")
    for process in processes:
        assert process.returncode == 143, process.stdout
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert 1 <= steps[-1] < 2000  # the reader is some batches ahead of the step
