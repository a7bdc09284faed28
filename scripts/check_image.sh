#!/usr/bin/env bash
# Builds the image and checks it with the local Docker engine: a container started as in deploy/ becomes healthy, answers
# correctly over TCP and through shared memory, and exits with status 0 when stopped; a second SIGTERM ends it at once.
#   scripts/check_image.sh [OPTION...]     options of "docker build", such as --network=host; IMAGE=NAME: checks that image
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

command -v docker >/dev/null || fail "no docker"
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
if [ -z "${IMAGE:-}" ]; then
  IMAGE=attnd:latest
  step "Building the image" "$root/build/logs/image.log" docker build -t "$IMAGE" "$@" .
fi

name=attnd-check-$$
folder=$(mktemp -d)
cleanup() {
  docker rm -f "$name" >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap cleanup EXIT
# start FLAG...  Starts a container as in deploy/compose.yaml; returns when its health check passes.
start() {
  docker rm -f "$name" >/dev/null 2>&1 || true
  docker run -d --name "$name" --read-only --cap-drop ALL --security-opt no-new-privileges:true --network none \
    -v "$folder:/tensors:ro" "$IMAGE" "$@" >/dev/null
  for _ in $(seq 60); do
    [ "$(docker inspect -f '{{.State.Health.Status}}' "$name")" = healthy ] && return
    sleep 0.5
  done
  docker logs "$name" >&2
  fail "the container did not get healthy"
}
attnctl() { docker exec "$name" attnctl "$@"; }

cp tests/golden/trained/t5-tiny_decoder0_512.safetensors "$folder/golden.safetensors"
# 262144 zeros per head take one thread longer than the drain. One head of keys makes the call travel as one message.
header='{"q":{"dtype":"F32","shape":[1,8,262144,1],"data_offsets":[0,8388608]},'
header+='"k":{"dtype":"F32","shape":[1,1,262144,1],"data_offsets":[8388608,9437184]},'
header+='"v":{"dtype":"F32","shape":[1,1,262144,1],"data_offsets":[9437184,10485760]}}'
{ printf "\\x$(printf %x ${#header})\\0\\0\\0\\0\\0\\0\\0%s" "$header"; head -c 10485760 /dev/zero; } >"$folder/long.safetensors"
chmod -R a+rX "$folder"

start
attnctl attend --model=t5-tiny --input=/tensors/golden.safetensors --compare=o_hf --tolerance=1e-4
docker stop -t 45 "$name" >/dev/null
status=$(docker inspect -f '{{.State.ExitCode}}' "$name")
[ "$status" = 0 ] || fail "stopped with status $status"
echo "healthy, answers, and ends with status 0 when it is stopped"

start --threads=1
attnctl attend --model=t5-tiny --input=/tensors/long.safetensors --output=/dev/null >"$folder/long.log" 2>&1 &
call=$!
sleep 3
kill -0 "$call" || { cat "$folder/long.log" >&2; fail "the long call has ended"; }
docker kill --signal TERM "$name" >/dev/null
sleep 1
[ "$(docker inspect -f '{{.State.Running}}' "$name")" = true ] || fail "the first SIGTERM did not wait for a call"
docker kill --signal TERM "$name" >/dev/null
timeout 10 docker wait "$name" >/dev/null || fail "the second SIGTERM, to process 1, did not end it in ten seconds"
echo "process 1: waits for a call at the first SIGTERM, ends at the second"

"${compose[@]}" -f deploy/compose.yaml config --quiet
if [ "$IMAGE" = attnd:latest ]; then
  "${compose[@]}" -f deploy/compose.shared-memory.yaml up --exit-code-from caller >"$folder/compose.log" 2>&1 ||
    { tail -n 20 "$folder/compose.log" >&2; fail "the two containers of deploy/compose.shared-memory.yaml"; }
  "${compose[@]}" -f deploy/compose.shared-memory.yaml down --volumes >/dev/null 2>&1
  echo "two containers share memory"
fi
