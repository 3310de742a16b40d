# rclone's WebDAV server, with basic auth.

install() { debian rclone; }

serve() {
  local port
  port=$(free_port)
  mkdir -p "$folder/data"
  launch env RCLONE_CONFIG=/dev/null rclone serve webdav --addr "127.0.0.1:$port" --user "$user" --pass "$password" \
    --dir-cache-time 0s --poll-interval 0 "$folder/data"
  wait_for url_answers "http://127.0.0.1:$port/"
  settings url "http://127.0.0.1:$port/" username "$user" password "$password" data "$folder/data"
}
