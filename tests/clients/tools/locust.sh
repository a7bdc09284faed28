# shellcheck shell=bash
python_tools locust==2.47.0 grpcio==1.85.3 protobuf==7.36.2
load() { # REQUEST [VARIABLE...]
  env REQUEST="$1" "${@:2}" PYTHONPATH="$TREE/examples/clients/python/generated" "$VENV/bin/locust" --headless \
    --locustfile "$CLIENTS/programs/locustfile.py" --users 2 --spawn-rate 2 --run-time 5s --stop-timeout 30s --host "$ADDRESS" 2>&1 |
    tee "$SCRATCH/locust.log"
}
load "$REQUEST"
grep -qE 'ComputeAttention +[1-9][0-9]* +0\(0' "$SCRATCH/locust.log"
sed 's/t5-tiny/no-such/' "$REQUEST" >"$SCRATCH/unknown.pb"
refused NOT_FOUND "model: expected a loaded model, got .{1,5}no-such" -- load "$SCRATCH/unknown.pb"
refused 'received message larger than max' -- load "$REQUEST" RECEIVE_LIMIT=4194304
echo "version: 2.47.0"
