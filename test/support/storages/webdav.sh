# rclone's WebDAV server, with basic auth: one that reads its folders anew for each request, for tests change files behind its
# back, and one with rclone's own settings, which knows of what is written through it.

install() { debian rclone; }

serve() {
  local port port_own
  port=$(free_port)
  port_own=$(free_port)
  mkdir -p "$folder/data"
  webdav "$port" --dir-cache-time 0s --poll-interval 0
  webdav "$port_own"
  settings url "http://127.0.0.1:$port/" url_own "http://127.0.0.1:$port_own/" username "$user" password "$password" \
    data "$folder/data"
}

webdav() { # port flag...
  launch env RCLONE_CONFIG=/dev/null rclone serve webdav --addr "127.0.0.1:$1" --user "$user" --pass "$password" "${@:2}" \
    "$folder/data"
  wait_for url_answers "http://127.0.0.1:$1/"
}
