"""nginx and HAProxy before several attnd, each with its own defaults but for what gRPC needs."""

import pathlib
import subprocess
import time

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream attnd {{
{backends}
    keepalive 16;
  }}
  server {{
    listen 127.0.0.1:{listen} http2;
    location / {{ grpc_pass grpc://attnd; }}
  }}
}}
"""

HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend clients
  bind 127.0.0.1:{listen} proto h2
  default_backend attnd
backend attnd
  balance roundrobin
{backends}
"""


def start(name: str, listen: int, ports: list[int], folder: pathlib.Path) -> subprocess.Popen:
    """Starts the proxy `name` at the loopback port `listen`; its files are in `folder`."""
    config = folder / f"{name}.conf"
    if name == "nginx":
        backends = "\n".join(f"    server 127.0.0.1:{port};" for port in ports)
        command = ["nginx", "-e", folder / "nginx.log", "-c", config]
        text = NGINX
    else:
        backends = "\n".join(f"  server attnd{i} 127.0.0.1:{port} proto h2 check" for i, port in enumerate(ports))
        command = ["haproxy", "-db", "-f", config]
        text = HAPROXY
    config.write_text(text.format(folder=folder, listen=listen, backends=backends))
    with (folder / f"{name}.out.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    time.sleep(1)
    if process.poll() is not None:
        raise RuntimeError(f"{name} did not start: see {folder}")
    return process
