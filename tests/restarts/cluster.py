#!/usr/bin/env python3
"""Rolls, deletes and scales the attnd of deploy/kubernetes/base under load, in a cluster, and counts what fails.

  cluster.py --image IMAGE [--namespace NAME] [--scenarios rollout,delete,scale] [--out FOLDER] [--cpu REQUEST]

IMAGE, which the nodes have or can pull, holds attnd and, at /usr/local/bin, restart_driver, which runs in a pod with the
settings that docs/operations.md recommends. The cluster is that of KUBECONFIG; the namespace is made, and deleted in the
end. kubectl has kustomize.

  rollout  two pods are replaced, four seconds after the client's start
  delete   one of two pods is deleted
  scale    one pod becomes three; after a minute the new ones must have 0.8 of their share of the load; and one again

Prints a table. Fails if a call fails or takes more than two seconds beyond its own time, or if the new pods' share is
too small.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import report

ROOT = pathlib.Path(__file__).parents[2]
CLIENT = "client"
LEAST_SHARE = 0.8  # of an equal share

OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {namespace}
resources: [{base}]
images: [{{name: attnd, newName: {name}, newTag: {tag}}}]
patches:
  - target: {{kind: Deployment}}
    patch: '[{{"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/cpu", "value": "{cpu}"}}]'
"""

NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}
"""

CLIENT_POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {client}, namespace: {namespace}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: client
      image: {image}
      imagePullPolicy: IfNotPresent
      command: [restart_driver, "--target=dns:///attnd.{namespace}.svc.cluster.local:50051", --seconds={seconds}]
      securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
"""


class Cluster:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        command = ["kubectl", "--namespace", self.options.namespace, *arguments]
        done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=False)
        if check and done.returncode != 0:
            sys.exit(f"failed with status {done.returncode}: {' '.join(command)}")
        return done.stdout

    def deploy(self) -> None:
        overlay = self.options.out / "overlay"
        overlay.mkdir(parents=True, exist_ok=True)
        name, _, tag = self.options.image.rpartition(":")
        base = os.path.relpath(ROOT / "deploy/kubernetes/base", overlay.resolve())
        values = {"namespace": self.options.namespace, "base": base, "name": name, "tag": tag, "cpu": self.options.cpu}
        (overlay / "kustomization.yaml").write_text(OVERLAY.format(**values))
        self.kubectl("create", "-f", "-", text=NAMESPACE.format(**values))
        self.kubectl("apply", "-k", str(overlay))
        self.settle()

    def settle(self) -> None:
        """Until the wanted pods, and no others, are there and ready."""
        self.kubectl("rollout", "status", "deployment/attnd", "--timeout=180s")
        wanted = self.kubectl("get", "deployment/attnd", "-o", "jsonpath={.spec.replicas}")
        for _ in range(600):
            if len(self.pods()) == int(wanted):
                return
            time.sleep(0.2)
        sys.exit(f"there are still other pods than the {wanted} wanted")

    def pods(self) -> list[str]:
        selector = "app.kubernetes.io/name=attnd"
        return self.kubectl("get", "pods", "-l", selector, "-o", "jsonpath={.items[*].metadata.name}").split()

    def received(self, pods: list[str]) -> dict[str, int]:
        """Bytes that each pod has received: all calls are of one size."""
        file = "/sys/class/net/eth0/statistics/rx_bytes"
        return {pod: int(self.kubectl("exec", pod, "--", "cat", file)) for pod in pods}

    def scale(self, replicas: int) -> None:
        self.kubectl("scale", "deployment/attnd", f"--replicas={replicas}")

    def start_client(self, seconds: int) -> None:
        self.kubectl("delete", "pod", CLIENT, "--ignore-not-found", "--wait=true")
        values = {"client": CLIENT, "namespace": self.options.namespace, "image": self.options.image}
        self.kubectl("apply", "-f", "-", text=CLIENT_POD.format(seconds=seconds, **values))
        self.kubectl("wait", "--for=jsonpath={.status.phase}=Running", f"pod/{CLIENT}", "--timeout=60s")

    def client_record(self) -> dict:
        self.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{CLIENT}", "--timeout=300s")
        log = ""
        for _ in range(50):  # the log may lag behind the phase
            log = self.kubectl("logs", CLIENT)
            for line in log.splitlines():  # gRPC's own lines are there too
                if line.startswith("{"):
                    return json.loads(line)
            time.sleep(0.2)
        sys.exit(f"the client wrote no record: {log}")


def rollout(cluster: Cluster) -> dict:
    cluster.start_client(60)
    time.sleep(4)
    cluster.kubectl("rollout", "restart", "deployment/attnd")
    return cluster.client_record()


def delete(cluster: Cluster) -> dict:
    cluster.start_client(40)
    time.sleep(4)
    cluster.kubectl("delete", "pod", cluster.pods()[0], "--wait=false")
    return cluster.client_record()


def scale(cluster: Cluster) -> dict:
    cluster.scale(1)
    cluster.settle()
    old = cluster.pods()
    cluster.start_client(150)
    time.sleep(4)
    cluster.scale(3)
    cluster.settle()
    time.sleep(60)
    pods = cluster.pods()
    before = cluster.received(pods)
    time.sleep(15)
    after = cluster.received(pods)
    cluster.scale(1)
    record = cluster.client_record()
    cluster.scale(2)
    received = {pod: after[pod] - before[pod] for pod in pods}
    shares = {pod: received[pod] * len(pods) / sum(received.values()) for pod in pods if pod not in old}
    print("shares of the new pods, 1 being an equal one:", ", ".join(f"{share:.2f}" for share in shares.values()))
    if min(shares.values()) < LEAST_SHARE:
        record["failed"]["SHARE"] = 1
        record["words"]["SHARE"] = f"a new pod has {min(shares.values()):.2f} of its share"
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--namespace", default="attnd-trial")
    parser.add_argument("--scenarios", type=lambda text: text.split(","), default=["rollout", "delete", "scale"])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/cluster")
    parser.add_argument("--cpu", default="100m", help="what each pod requests, so that all fit a small cluster")
    options = parser.parse_args()
    cluster = Cluster(options)
    cluster.deploy()
    rows = []
    try:
        for name in options.scenarios:
            cluster.settle()
            record = {"rollout": rollout, "delete": delete, "scale": scale}[name](cluster)
            rows.append({"servers": "cluster", "scenario": name, "client": "cpp"} | record)
            print(f"{name}: done", flush=True)
    finally:
        cluster.kubectl("delete", "namespace", options.namespace, "--timeout=90s", check=False)
    return report.conclude(rows, options.out)


if __name__ == "__main__":
    sys.exit(main())
