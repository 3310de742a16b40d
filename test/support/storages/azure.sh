# Azurite, blobs only: checks shared keys and SAS. A second one speaks TLS, without which it takes no bearer tokens; of those it
# checks issuer, audience and dates, but no signature.

account=rigelacct
key=cmlnZWwtdGVzdC1rZXktd29ydGgtbm90aGluZy1vdXRzaWRlLXRoaXMtbWFjaGluZS1hYmNkZWZnaGlqa2xtbm9wcQ==

install() {
  [ -x "$engines/azurite/node_modules/.bin/azurite-blob" ] && return
  mkdir -p "$engines/azurite"
  npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$engines/azurite" azurite@3.37.0
}

azurite() { # port option...
  local port=$1
  shift
  launch env AZURITE_ACCOUNTS="$account:$key" "$engines/azurite/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 \
    --blobPort "$port" --silent --skipApiVersionCheck --disableTelemetry "$@"
}

serve() {
  local port tls_port endpoint
  port=$(free_port)
  tls_port=$(free_port)
  endpoint=http://127.0.0.1:$port/$account
  certificates
  azurite "$port" --location "$folder/data"
  azurite "$tls_port" --location "$folder/data-tls" --oauth basic --cert "$tls/cert.pem" --key "$tls/key.pem"
  wait_for url_answers "http://127.0.0.1:$port/"
  wait_for url_answers "https://127.0.0.1:$tls_port/"
  settings endpoint "$endpoint" endpoint_tls "https://127.0.0.1:$tls_port/$account" ca_file "$tls/ca.pem" account "$account" key "$key" \
    connection_string "DefaultEndpointsProtocol=http;AccountName=$account;AccountKey=$key;BlobEndpoint=$endpoint;"
}
