# moto: takes keys that MinIO refuses (`..`, `//`, a leading `/`, `a` beside `a/b`), checks no credentials.

install() {
  [ -x "$engines/moto/bin/moto_server" ] && return
  python3 -m venv "$engines/moto"
  "$engines/moto/bin/pip" install -q 'moto[server,s3]==5.2.1'
}

serve() {
  local port
  port=$(free_port)
  launch "$engines/moto/bin/moto_server" -H 127.0.0.1 -p "$port"
  wait_for url_answers "http://127.0.0.1:$port/moto-api/"
  settings endpoint "http://127.0.0.1:$port" region us-east-1 access_key_id any secret_access_key any
}
