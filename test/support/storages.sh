#!/usr/bin/env bash
# Real storage servers for tests, on loopback, each with a folder, keys and a free port of its own.
#
#   storages.sh install NAME...   get the programs
#   storages.sh start NAME...     start what is not running, wait until it answers, print its settings as one JSON line
#   storages.sh stop [NAME...]    end them, without names all
#
# Each server is a file in storages/ with two functions: `install`, and `serve`, which ends with `settings KEY VALUE ...`.
# RIGEL_TEST_STORAGES   data, keys, pids and settings of this set of servers (default: TMPDIR/rigel-storages); tests look
#                       there for <name>/settings.json
# RIGEL_ENGINES         programs, installed once and shared (default: ~/.cache/rigel-engines)
set -euo pipefail
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/storages" && pwd)
engines=${RIGEL_ENGINES:-${XDG_CACHE_HOME:-$HOME/.cache}/rigel-engines}
set_folder=${RIGEL_TEST_STORAGES:-${TMPDIR:-/tmp}/rigel-storages}

# Credentials of these servers and of nothing else.
user=rigel
password='rigel-Pass.123'
token=rigel-token-0123456789

fail() {
  echo "storages.sh: $*" >&2
  exit 1
}

# --- processes: a pid counts only together with its start time, for pids are used again

start_time() { # pid
  local line
  line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  line=${line##*) }
  set -- $line
  [ "$1" != Z ] && echo "${20}"
}

launch() { # command...: in the background, in a session of its own
  # Its own folder: the one of the caller may be removed while the server lives.
  setsid env -C "$folder" "$@" >>"$folder/log" 2>&1 </dev/null &
  local pid=$! started
  disown "$pid"
  sleep 0.1
  started=$(start_time "$pid") || fail "$name did not start: $(tail -n 5 "$folder/log")"
  echo "$pid $started" >>"$folder/pids"
}

is_running() { # folder: all of its processes are alive
  local pid started
  [ -s "$1/pids" ] && [ -f "$1/settings.json" ] || return 1
  while read -r pid started; do
    [ "$(start_time "$pid")" = "$started" ] || return 1
  done <"$1/pids"
}

stop_one() { # folder
  local signal pid started
  [ -f "$1/pids" ] || return 0
  for signal in TERM TERM TERM KILL; do
    while read -r pid started; do
      if [ "$(start_time "$pid")" = "$started" ]; then kill "-$signal" -- "-$pid" 2>/dev/null || true; fi
    done <"$1/pids"
    sleep 0.2
  done
  rm -f "$1/pids" "$1/settings.json"
}

# --- for the server files

free_port() { # below the range that the kernel gives to clients; taken for this set by a folder
  local port i
  for i in $(seq 200); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && mkdir "$set_folder/.ports/$port" 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  fail "no free port"
}

wait_for() { # command...: until it succeeds, at most a minute
  local i
  for i in $(seq 600); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "$name never answered: $(tail -n 5 "$folder/log")"
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }

url_answers() { # url [status as a pattern]
  local status
  status=$(curl -sko /dev/null -w '%{http_code}' --max-time 2 "$1") && [[ $status =~ ${2:-^[1-4]} ]]
}

debian() { # package...: where they are missing, without starting their own services
  local missing=() package policy=/usr/sbin/policy-rc.d
  for package in "$@"; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || fail "needs ${missing[*]}; as root it would install them"
  local made=
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    made=1
  fi
  export DEBIAN_FRONTEND=noninteractive
  # Another server's packages may just be being installed.
  local install=(apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends)
  "${install[@]}" "${missing[@]}" >&2 || { apt-get update -qq >&2 && "${install[@]}" "${missing[@]}" >&2; }
  [ -z "$made" ] || rm -f $policy
}

go_program() { # name module@version
  [ -x "$engines/bin/$1" ] && return
  mkdir -p "$engines/bin"
  GOBIN="$engines/bin" CGO_ENABLED=0 nice go install -p 2 -trimpath -ldflags '-s -w' "$2" >&2
}

certificates() { # one authority and one certificate for the set, in $tls/ca.pem, cert.pem, key.pem
  tls=$set_folder/tls
  [ -f "$tls/done" ] && return
  mkdir -p "$tls"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=rigel tests" \
    -keyout "$tls/ca.key" -out "$tls/ca.pem" 2>/dev/null
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" \
    -keyout "$tls/key.pem" -out "$tls/request.pem" 2>/dev/null
  echo "subjectAltName=DNS:localhost,DNS:*.localhost,DNS:github.localhost,DNS:gitlab.localhost,DNS:bitbucket.localhost,DNS:rigelacct.blob.core.windows.net,IP:127.0.0.1" >"$tls/names"
  openssl x509 -req -in "$tls/request.pem" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial -days 30 \
    -extfile "$tls/names" -out "$tls/cert.pem" 2>/dev/null
  touch "$tls/done"
}

nginx_serve() { # server blocks: an nginx of its own in $folder
  mkdir -p "$folder/tmp"
  cat >"$folder/nginx.conf" <<NGINX
user root;
worker_processes 1;
pid $folder/nginx.pid;
error_log $folder/nginx-error.log error;
events { worker_connections 1024; }
http {
  access_log $folder/access.log combined;
  default_type application/octet-stream;
  charset utf-8;
  server_names_hash_bucket_size 128;
  client_body_temp_path $folder/tmp/body;
  proxy_temp_path $folder/tmp/proxy;
  fastcgi_temp_path $folder/tmp/fastcgi;
  uwsgi_temp_path $folder/tmp/uwsgi;
  scgi_temp_path $folder/tmp/scgi;
  $1
}
NGINX
  launch nginx -e "$folder/nginx-error.log" -c "$folder/nginx.conf" -p "$folder" -g 'daemon off;'
}

settings() { # key value...: plain text values, written as one JSON object
  local out="{\"name\":\"$name\"" key value
  while [ $# -gt 0 ]; do
    key=$1 value=$2
    shift 2
    value=${value//\\/\\\\}
    value=${value//\"/\\\"}
    value=${value//$'\n'/\\n}
    out+=",\"$key\":\"$value\""
  done
  echo "$out}" >"$folder/settings.json"
}

# --- commands

start_one() {
  name=$1 folder=$set_folder/$1
  mkdir -p "$set_folder/.ports" "$folder"
  (
    flock 9
    if ! is_running "$folder"; then
      stop_one "$folder"
      : >"$folder/pids"
      exec 9>&-
      . "$here/$name.sh"
      install >&2
      serve
    fi
  ) 9>"$set_folder/.$name.lock"
  cat "$folder/settings.json"
}

command=${1:-}
[ $# -eq 0 ] || shift
for name in "$@"; do [ -f "$here/$name.sh" ] || fail "no such server: $name (there are: $(cd "$here" && echo *.sh | sed 's/\.sh//g'))"; done
case $command in
  install) for name in "$@"; do (. "$here/$name.sh" && install); done ;;
  start) for name in "$@"; do start_one "$name"; done ;;
  stop)
    if [ $# -eq 0 ]; then for path in "$set_folder"/*/; do stop_one "$path"; done; fi
    for name in "$@"; do stop_one "$set_folder/$name"; done
    ;;
  *)
    sed -n 's/^# \{0,1\}//; 2,13p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
