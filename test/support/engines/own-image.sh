#!/usr/bin/env bash
# Rigel's own image, built from the Dockerfile on the base that tests can have, for the Docker engine and the cluster.
#
#   own-image.sh build       builds it in the engine at DOCKER_HOST; prints RIGEL_TEST_IMAGE=...
#   own-image.sh load        brings it into the test cluster
#
# RIGEL_ENGINES       where engines live (default: ${XDG_CACHE_HOME:-~/.cache}/rigel-engines)
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ENGINES=${RIGEL_ENGINES:-${XDG_CACHE_HOME:-$HOME/.cache}/rigel-engines}
ARCHIVE=$ENGINES/test-images/own/rigel-own.tar
IMAGE=rigel.test/rigel:own

image_id() { docker image inspect -f '{{.Id}}' "$IMAGE" 2>/dev/null || true; }

build() {
  local before log try
  before=$(image_id)
  log=$(mktemp)
  # `npm ci` in it needs the network, whose moods are no fault of the Dockerfile's: what is cut off is begun again. With
  # the engine's own builder, for not every docker command has the other.
  for try in 1 2 3; do
    if DOCKER_BUILDKIT=0 docker build --build-arg BASE=rigel.test/node:24 --build-arg PACKAGES= -t "$IMAGE" "$HERE/../../.." >"$log" 2>&1; then
      rm -f "$log"
      [ -z "$before" ] || [ "$before" = "$(image_id)" ] || docker rmi "$before" >/dev/null 2>&1 || true
      echo "RIGEL_TEST_IMAGE=$IMAGE"
      return
    fi
    grep -qE 'ETIMEDOUT|ECONNRESET|EAI_AGAIN' "$log" || break
  done
  tail -n 50 "$log" >&2
  rm -f "$log"
  return 1
}

load() {
  mkdir -p "$(dirname "$ARCHIVE")"
  docker save -o "$ARCHIVE" "$IMAGE"
  "$HERE/kubernetes.sh" load "$ARCHIVE"
  rm -f "$ARCHIVE"
}

case ${1:-} in
  build) build ;;
  load) load ;;
  *) sed -n 's/^# \{0,1\}//; 2,7p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
