#!/usr/bin/env python3
"""Stops, kills and starts attnd under load of several clients, and counts what fails.

  trial.py --attnd BINARY --driver BINARY [--python PYTHON] [--out FOLDER]
           [--fronts direct,nginx,haproxy] [--scenarios restart,long,kill,single]
           [--clients cpp,cpp-large,python,js,python-set,js-set]
           [--times N] [--down SECONDS] [--deadline SECONDS]

Two servers, directly or behind a proxy as deploy/proxies sets it up; one in the scenario "single". All clients call
at the same time, eight callers each, a small call every 50 ms (cpp-large: two callers, calls of 2 MiB in pieces):

  restart  SIGTERM, and a start once the process has ended; one server after the other, N times
  long     the same, while the server that stops computes a call of some seconds; every other one travels in pieces
  kill     kill -9 and a start, N times
  single   as restart, with one server that is away for --down seconds

The foreign clients have their defaults, or, with "-set", the settings that docs/operations.md recommends.

Prints a table. Fails if a call of our client (cpp, cpp-large) fails or takes more than two seconds beyond its own time, whatever the
others count: how they try again is theirs to say. Fails also if a server ends with another status than 0.
"""

import argparse
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import proxies
import report

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
HEADS, LENGTH, DIM = 4, 64, 32  # as driver.cc
OUTPUT_BYTES = HEADS * LENGTH * DIM * 4
LONG_ROWS = 24576
POLICIES = ("round_robin", "pick_first")
# As in docs/operations.md, "Clients of other languages".
RECOMMENDED = {
    "methodConfig": [
        {
            "name": [{"service": "attnd.v1.AttentionService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """An attnd that keeps its port from one start to the next."""

    def __init__(self, binary: str, log: pathlib.Path) -> None:
        self.binary, self.log, self.port = binary, log, free_port()
        self.process = None
        self.longest_stop = 0.0
        self.start()

    def start(self) -> None:
        with self.log.open("a") as log:
            before = self.log.stat().st_size
            command = [self.binary, f"--listen=127.0.0.1:{self.port}", "--threads=1"]
            self.process = subprocess.Popen(command, stderr=log)
        for _ in range(600):
            if re.search(rf"127\.0\.0\.1:{self.port}\b", self.log.read_text()[before:]):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        sys.exit(f"attnd did not start: see {self.log}")

    def stop(self) -> None:
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.longest_stop = max(self.longest_stop, time.monotonic() - started)
        if status != 0:
            sys.exit(f"attnd ended with status {status}: see {self.log}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)


def write_request(path: pathlib.Path) -> None:
    """A small call as a serialised message, for clients that need no generated code."""
    tensor = "\\000\\000\\200\\077" * (HEADS * LENGTH * DIM)  # ones
    fields = {"model": '"t5-tiny"', "batch": 1, "heads": HEADS, "query_length": LENGTH, "key_length": LENGTH}
    fields |= {"head_dim": DIM, "dtype": "DTYPE_FP32", "first_head": 0} | {name: f'"{tensor}"' for name in "qkv"}
    text = "\n".join(f"{name}: {value}" for name, value in fields.items())
    command = ["protoc", f"-I{ROOT}/proto", "--encode=attnd.v1.ComputeAttentionRequest", "attnd/v1/attention.proto"]
    path.write_bytes(subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout)


def client_command(options: argparse.Namespace, kind: str, target: str, policy: str, seconds: float) -> list[str]:
    if kind.startswith("cpp"):
        size = ["--rows=1024", "--callers=2"] if kind == "cpp-large" else []
        deadline = f"--deadline={options.deadline}s"
        return [options.driver, f"--target={target}", f"--policy={policy}", f"--seconds={seconds}", deadline, *size]
    language, _, settings = kind.partition("-")
    program = {"python": [options.python, HERE / "python_client.py"], "js": ["node", HERE / "grpc_js_client.js"]}
    config = {"loadBalancingConfig": [{policy: {}}]} | (RECOMMENDED if settings else {})
    request = options.out / "request.bin"
    return [*program[language], target, json.dumps(config), request, str(OUTPUT_BYTES), str(seconds)]


def disturb(scenario: str, servers: list[Server], options: argparse.Namespace) -> list[dict]:
    """What happens to the servers; returns the long calls."""
    calls = []
    for turn in range(options.times):
        server = servers[turn % len(servers)]
        time.sleep(1)
        if scenario == "kill":
            server.kill()
            time.sleep(0.5)
        elif scenario == "long":
            pieces = turn // len(servers) % 2 == 1
            command = [options.driver, f"--target=127.0.0.1:{server.port}", f"--long={LONG_ROWS}"]
            command += ["--pieces"] if pieces else []
            call = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            time.sleep(1)
            computing = call.poll() is None
            server.stop()
            record = json.loads(call.communicate()[0])
            name = "cpp, a long call" + (" in pieces" if pieces else "")
            record["client"] = name + ("" if computing else " (ended before the stop)")
            calls.append(record)
        else:
            server.stop()
            time.sleep(options.down if scenario == "single" else 0)
        server.start()
    time.sleep(1)
    return calls


def duration(scenario: str, options: argparse.Namespace) -> float:
    """Seconds that the clients call: somewhat more than disturb() takes on an idle machine."""
    each = {"restart": 2.0, "long": 8.0, "kill": 2.0, "single": 1.5 + options.down}[scenario]
    return 2 + options.times * each


def run(front: str, scenario: str, options: argparse.Namespace) -> list[dict]:
    folder = options.out / f"{front}-{scenario}"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.log"):
        old.unlink()
    servers = [Server(options.attnd, folder / f"attnd{i}.log") for i in range(1 if scenario == "single" else 2)]
    ports = [server.port for server in servers]
    proxy = None
    clients = []
    try:
        if front == "direct":
            target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        else:
            listen = free_port()
            proxy = proxies.start(front, listen, ports, folder)
            target = f"ipv4:127.0.0.1:{listen}"
        for kind in options.clients:
            for policy in POLICIES if front == "direct" and scenario != "single" else POLICIES[:1]:
                name = f"{kind} {policy}" if front == "direct" and scenario != "single" else kind
                command = client_command(options, kind, target, policy, duration(scenario, options))
                errors = (folder / f"{name.replace(' ', '-')}.log").open("w")
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
                clients.append((name, process))
        long_calls = disturb(scenario, servers, options)
        rows = []
        for name, process in clients:
            text = process.communicate(timeout=600)[0]
            if process.returncode != 0:
                sys.exit(f"{name} ended with status {process.returncode}: see {folder}")
            rows.append({"servers": front, "scenario": scenario, "client": name} | json.loads(text))
        rows += [{"servers": front, "scenario": scenario} | record for record in long_calls]
    finally:
        for _, process in clients:
            process.kill()
        if proxy:
            proxy.terminate()
            proxy.wait(60)
        for server in servers:
            server.kill()
    stops = max(server.longest_stop for server in servers)
    print(f"{front}, {scenario}: done; the longest stop took {stops:.1f} s", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attnd", required=True)
    parser.add_argument("--driver", required=True)
    parser.add_argument("--python", default=sys.executable, help="one that has grpcio")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/restarts"))
    for name, values in (
        ("fronts", ["direct", "nginx", "haproxy"]),
        ("scenarios", ["restart", "long", "kill", "single"]),
        ("clients", ["cpp", "cpp-large", "python", "js", "python-set", "js-set"]),
    ):
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), default=values)
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--down", type=float, default=0.2)
    parser.add_argument("--deadline", type=float, default=60)
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    write_request(options.out / "request.bin")
    rows = []
    for front in options.fronts:
        for scenario in options.scenarios:
            rows += run(front, scenario, options)
    return report.conclude(rows, options.out)


if __name__ == "__main__":
    sys.exit(main())
