# Azurite, blobs only: checks shared keys and SAS.

account=rigelacct
key=cmlnZWwtdGVzdC1rZXktd29ydGgtbm90aGluZy1vdXRzaWRlLXRoaXMtbWFjaGluZS1hYmNkZWZnaGlqa2xtbm9wcQ==

install() {
  [ -x "$engines/azurite/node_modules/.bin/azurite-blob" ] && return
  mkdir -p "$engines/azurite"
  npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$engines/azurite" azurite@3.37.0
}

serve() {
  local port endpoint
  port=$(free_port)
  endpoint=http://127.0.0.1:$port/$account
  launch env AZURITE_ACCOUNTS="$account:$key" "$engines/azurite/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 \
    --blobPort "$port" --location "$folder/data" --silent --skipApiVersionCheck --disableTelemetry
  wait_for url_answers "http://127.0.0.1:$port/"
  settings endpoint "$endpoint" account "$account" key "$key" \
    connection_string "DefaultEndpointsProtocol=http;AccountName=$account;AccountKey=$key;BlobEndpoint=$endpoint;"
}
