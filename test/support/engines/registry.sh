#!/usr/bin/env bash
# A private image registry with a login, on this machine's loopback: for tests of pulls and pull policies. Engines of this
# machine reach its images as 127.0.0.1:PORT/IMAGE:TAG.
#
#   registry.sh install|start|stop|status|clean     start prints RIGEL_TEST_REGISTRY, user and password
#
# RIGEL_ENGINES         where engines live (default: ${XDG_CACHE_HOME:-~/.cache}/rigel-engines)
# RIGEL_REGISTRY_PORT   default 15001
set -euo pipefail

ENGINES=${RIGEL_ENGINES:-${XDG_CACHE_HOME:-$HOME/.cache}/rigel-engines}
DIR=$ENGINES/registry
PORT=${RIGEL_REGISTRY_PORT:-15001}
USER_NAME=rigel PASSWORD=correct-horse

say() { printf '%s\n' "$*" >&2; }
our_pid() { local p; p=$(cat "$DIR/pid" 2>/dev/null) && tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -qF "$DIR/config.yml" && echo "$p"; }
answers() { curl -sf --max-time 2 -u "$USER_NAME:$PASSWORD" "http://127.0.0.1:$PORT/v2/" >/dev/null; }
print_env() { printf 'RIGEL_TEST_REGISTRY=127.0.0.1:%s\nRIGEL_TEST_REGISTRY_USER=%s\nRIGEL_TEST_REGISTRY_PASSWORD=%s\n' "$PORT" "$USER_NAME" "$PASSWORD"; }

install_packages() {
  local missing=()
  command -v docker-registry >/dev/null || missing+=(docker-registry)
  command -v htpasswd >/dev/null || missing+=(apache2-utils)
  [ ${#missing[@]} -eq 0 ] && return 0
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

start() {
  local i
  if our_pid >/dev/null && answers; then print_env; return; fi
  install_packages
  mkdir -p "$DIR/data"
  htpasswd -Bbn "$USER_NAME" "$PASSWORD" >"$DIR/htpasswd"
  cat >"$DIR/config.yml" <<YAML
version: 0.1
log: {level: warn, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: "$DIR/data"}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$PORT", secret: not-a-secret}
auth: {htpasswd: {realm: rigel, path: "$DIR/htpasswd"}}
YAML
  setsid docker-registry serve "$DIR/config.yml" </dev/null >"$DIR/log" 2>&1 &
  echo $! >"$DIR/pid"
  for ((i = 0; i < 300; i++)); do
    if answers; then print_env; return; fi
    sleep 0.1
  done
  tail -n 10 "$DIR/log" >&2
  say "registry.sh: no answer on 127.0.0.1:$PORT"
  exit 1
}

stop() { local p i; if p=$(our_pid); then kill "$p"; for ((i = 0; i < 100; i++)); do our_pid >/dev/null || break; sleep 0.05; done; fi; rm -f "$DIR/pid"; }

case ${1:-} in
  install) install_packages ;;
  start) start ;;
  stop) stop ;;
  clean) stop; rm -rf "$DIR" ;;
  status) if our_pid >/dev/null && answers; then print_env; else say "not running"; exit 1; fi ;;
  *) say "usage: registry.sh install|start|stop|status|clean"; exit 2 ;;
esac
