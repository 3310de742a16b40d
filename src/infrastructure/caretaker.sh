#!/bin/sh
# Keeps the output files of one agent's runs in bounds after that agent has died; one per agent, not one per run.
#
#   caretaker.sh RUNS_DIRECTORY KEEPER CAP_BYTES SECONDS
#
# Waits on standard input, whose other end the agent holds, so that the kernel says when it is gone. From then on it looks
# every SECONDS, empties what is above CAP_BYTES, and ends when no living run is left that names KEEPER: the next agent
# puts its own name into `position` when it takes a run over.
{
  # Succeeds when the submission in folder $1 is ours and still runs.
  is_ours() {
    read -r _ keeper _ 2>/dev/null <"$1/position" || return 1
    [ "$keeper" = "$2" ] || return 1
    word=
    read -r word _ 2>/dev/null <"$1/exit"
    [ "$word" != rigel-exit ] || return 1
    read -r _ _ supervisor _ run _ 2>/dev/null <"$1/record" || return 1
    kill -0 "$supervisor" 2>/dev/null || kill -0 "$run" 2>/dev/null
  }

  has_work() {
    for position in "$1"/*/process/*/position; do
      is_ours "${position%/*}" "$2" && return 0
    done
    return 1
  }

  read -r _
  while has_work "$1" "$2"; do
    find "$1" -path '*/process/*/output' -size +"$3"c 2>/dev/null | while IFS= read -r output; do
      folder=${output%/output}
      is_ours "$folder" "$2" || continue
      tail -c 8192 "$output" >"$folder/earlier"
      true >"$output"
      printf '%16s %s cut\n' 0 "$2" >"$folder/position"
    done
    sleep "$4" || exit 1
  done
  exit 0
}
