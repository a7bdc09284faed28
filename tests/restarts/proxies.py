"""nginx and HAProxy before two attnd, with the files of deploy/proxies."""

import pathlib
import subprocess
import time

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy/proxies"

# What surrounds deploy/proxies/nginx.conf where nginx does not run as the system's.
NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  include {folder}/attnd.conf;
}}
"""


def replaced(text: str, new: dict[str, str]) -> str:
    for old, value in new.items():
        if old not in text:
            raise RuntimeError(f"deploy/proxies: nothing says {old!r}")
        text = text.replace(old, value)
    return text


def start(name: str, listen: int, ports: list[int], folder: pathlib.Path) -> subprocess.Popen:
    """Starts the proxy `name` at the loopback port `listen`; its files are in `folder`. One port stands for both."""
    addresses = {f"attnd-{i + 1}:50051": f"127.0.0.1:{ports[i % len(ports)]}" for i in range(2)}
    if name == "nginx":
        text = replaced((DEPLOY / "nginx.conf").read_text(), addresses | {"listen 50051": f"listen 127.0.0.1:{listen}"})
        (folder / "attnd.conf").write_text(text)
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
        command = ["nginx", "-e", folder / "nginx.log", "-c", folder / "nginx.conf"]
    else:
        text = replaced((DEPLOY / "haproxy.cfg").read_text(), addresses | {"bind :50051": f"bind 127.0.0.1:{listen}"})
        (folder / "haproxy.cfg").write_text(text)
        command = ["haproxy", "-db", "-f", folder / "haproxy.cfg"]
    with (folder / f"{name}.out.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    time.sleep(1)
    if process.poll() is not None:
        raise RuntimeError(f"{name} did not start: see {folder}")
    return process
