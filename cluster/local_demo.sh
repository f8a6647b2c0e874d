#!/usr/bin/env bash
# bash cluster/local_demo.sh: the quick-start recipe on a local Ray that this script starts, and stops when it ends.
# The same path as a cluster: `ray job submit --working-dir . -- python pipelines/full_tpo.py`.
# Arguments are overrides: bash cluster/local_demo.sh evaluation.limit_per_task=20
# With --stop it only ends the Ray of a demo that was killed.
set -euo pipefail
cd "$(dirname "$0")/.."
# A job's `python` is the first on the head's PATH, so the environment comes first.
export PATH="$PWD/.venv/bin:$PATH"
# This Ray listens on the local host only and lives for the demo: it needs no token.
export RAY_AUTH_MODE=disabled
export RAY_USAGE_STATS_ENABLED=0 RAY_DISABLE_IMPORT_WARNING=1 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
port="${TPO_DASHBOARD_PORT:-8265}"
work="$PWD/runs/quickstart"
mkdir -p "$work"
pid_file="$work/ray.pid"

stop_ray() {
  [ -f "$pid_file" ] || return 0
  # A number in an old file may be another process by now. (While children of the dead one live, it cannot be.)
  local command
  command="$(tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$pid_file")/cmdline" || true)"
  if [ -n "$command" ] && [[ "$command" != *"ray start --head --block"* ]]; then
    rm -f "$pid_file"
    return 0
  fi
  # `ray start --block` takes its children along; the whole session of processes is ended, nobody else's.
  kill -TERM -- "-$(cat "$pid_file")" 2>/dev/null || true
  for _ in $(seq 50); do kill -0 -- "-$(cat "$pid_file")" 2>/dev/null || break; sleep 0.2; done
  kill -KILL -- "-$(cat "$pid_file")" 2>/dev/null || true
  rm -f "$pid_file"
}
stop_ray  # left behind by a demo that was killed
[ "${1:-}" != --stop ] || exit 0
trap stop_ray EXIT
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  echo "error: something listens on port $port already: stop it, or set TPO_DASHBOARD_PORT to a free port"
  exit 2
fi

echo "starting a local Ray (log: runs/quickstart/ray.log)"
setsid ray start --head --block --node-ip-address=127.0.0.1 --port=0 --num-cpus=2 --dashboard-port="$port" --disable-usage-stats \
  --object-store-memory=1000000000 >"$work/ray.log" 2>&1 &
echo $! >"$pid_file"
for _ in $(seq 120); do
  python - "$port" <<'PY' && break || sleep 0.5
import sys, urllib.request
try:
    urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/api/version", timeout=2)
except OSError:
    raise SystemExit(1)
PY
  kill -0 "$(cat "$pid_file")" 2>/dev/null || { tail -n 5 "$work/ray.log"; echo "error: Ray did not start"; exit 1; }
done

address="http://127.0.0.1:$port"
job="quickstart-$$"
# The copy that the job runs has no .git: tell it which code it is.
commit="$(git rev-parse HEAD 2>/dev/null || echo unknown)"
[ "$commit" = unknown ] || git diff --quiet HEAD || commit="$commit-dirty"
for attempt in $(seq 30); do  # the dashboard answers some seconds before its agent can take a job
  ray job submit --address "$address" --submission-id "$job" --no-wait --working-dir . \
    --runtime-env-json "{\"env_vars\": {\"TPO_COMMIT\": \"$commit\"}}" -- \
    python pipelines/full_tpo.py --recipe quickstart "work_uri=$work" "$@" >"$work/submit.log" 2>&1 && break
  grep -q "No available agent" "$work/submit.log" && [ "$attempt" -lt 30 ] || { tail -n 5 "$work/submit.log"; exit 1; }
  sleep 2
done
ray job logs --address "$address" --follow "$job" --log-style record --log-color false 2>"$work/follow.log"
# Read to its end before it is searched: `grep -q` in a pipe ends at the first match, and the writer dies of it.
status="$(ray job status --address "$address" "$job" --log-style record --log-color false 2>&1)" || true
grep -q -i "succeeded" <<<"$status" || { echo "error: the job did not succeed; its lines are above"; exit 1; }
python pipelines/promote.py --recipe quickstart "work_uri=$work" "$@" || [ $? -eq 3 ]  # 3: refused by a gate, which is an answer
