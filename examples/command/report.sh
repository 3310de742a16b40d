#!/bin/sh
# A plain command as a flow run: it knows nothing of Prefect. Its parameters lie in a JSON file.
echo "parameters: $(cat "$RIGEL_PARAMETERS_FILE")"
for part in one two three; do
  echo "working on part $part"
  sleep 1
done
echo "done"
