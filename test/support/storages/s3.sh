# MinIO: checks signatures (V4), refuses keys that no file system could hold. Buckets are made through the API, and are found by
# the path and by the host name BUCKET.localhost.

install() { go_program minio github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c; }

serve() {
  local port
  port=$(free_port)
  mkdir -p "$folder/data"
  launch env HOME="$folder" MINIO_ROOT_USER="$user" MINIO_ROOT_PASSWORD="$password" \
    MINIO_DOMAIN=localhost MINIO_BROWSER=off MINIO_UPDATE=off MINIO_CI_CD=1 \
    "$engines/bin/minio" server --quiet --address "127.0.0.1:$port" "$folder/data"
  wait_for url_answers "http://127.0.0.1:$port/minio/health/ready" '^200'
  settings endpoint "http://127.0.0.1:$port" region us-east-1 access_key_id "$user" secret_access_key "$password"
}
