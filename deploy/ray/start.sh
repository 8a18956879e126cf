#!/usr/bin/env bash
# Starts this machine's part of a Ray cluster for Easel, in the foreground.
#
#   start.sh head           the head: no replica runs here unless CPUS says so
#   start.sh node HEAD:6379 a machine that carries replicas and gateways
#
# Settings, by environment: EASEL_ENV (file with Ray's settings, default: easel.env beside this script), ADDRESS
# (this machine's, default: Ray's guess), PORT (of the head, 6379), CPUS (what Ray counts; 0.1 a replica or
# gateway; head: 0, node: all cores), GPUS (default: all), DASHBOARD (address of the head's dashboard and deploy
# port 8265, 127.0.0.1), DASHBOARD_PORT, CLIENT_PORT (10001), TEMP (folder for sockets and logs; a short path),
# STORE_MB (Ray's shared memory, 256; Easel's messages are small).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
token=${RAY_AUTH_TOKEN:-}
set -a
# shellcheck source=easel.env
. "${EASEL_ENV:-$here/easel.env}"
set +a
if [[ -z "${RAY_AUTH_TOKEN:-}" ]]; then export RAY_AUTH_TOKEN="$token"; fi
if [[ "${RAY_AUTH_MODE:-}" == token && -z "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ]]; then
  echo "set RAY_AUTH_TOKEN, the same on every node: openssl rand -hex 32" >&2
  exit 2
fi

options=(--block --disable-usage-stats "--object-store-memory=$((${STORE_MB:-256} * 1024 * 1024))")
[[ -n "${ADDRESS:-}" ]] && options+=("--node-ip-address=$ADDRESS")
[[ -n "${TEMP:-}" ]] && options+=("--temp-dir=$TEMP")
[[ -n "${GPUS:-}" ]] && options+=("--num-gpus=$GPUS")
# Any free port; two nodes on one machine would otherwise want the same ones.
options+=(--min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0)

case "${1:-}" in
  head)
    options+=(--head "--port=${PORT:-6379}" "--num-cpus=${CPUS:-0}" "--ray-client-server-port=${CLIENT_PORT:-10001}")
    options+=(--include-dashboard=true "--dashboard-host=${DASHBOARD:-127.0.0.1}")
    options+=("--dashboard-port=${DASHBOARD_PORT:-8265}")
    ;;
  node)
    options+=("--address=${2:?the address of the head, as host:port}" "--num-cpus=${CPUS:-$(nproc)}")
    ;;
  *)
    echo "usage: $0 head | $0 node HEAD:PORT" >&2
    exit 2
    ;;
esac
exec ray start "${options[@]}"
