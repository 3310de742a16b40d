#!/bin/sh
# Stands beside one run from its start to its end, so that the end is on record whether an agent lives or not.
#
#   supervisor.sh FOLDER BOOT_ID PID_NAMESPACE STREAM COMMAND...
#
# COMMAND is what puts the run into a session of its own, and the run's own command. Output goes to standard output,
# which the agent has opened with O_APPEND; descriptor 3 tells the agent when to look. Leaves in FOLDER:
#   token    whoever creates it may start this submission, or knows that nobody else ever will
#   record   who the supervisor and the run are, complete before the run's command is
#   exit     the run's exit code; the agent has made it, filled with blanks, so that a full disk cannot keep it out
# All three are written in place and end in a word of their own: a reader takes nothing without it. Needs no program
# beside the shell on Linux, for a machine short of processes or memory must not lose an exit code.
# Works in dash, busybox ash and bash. The braces make the shell read all of it before it runs any.
{
  # The run inherits this shell's environment: all names here are ones that no run uses.
  rigel_folder=$1 rigel_boot=$2 rigel_namespace=$3 rigel_stream=$4
  shift 4

  # Never '', for the run would inherit the ignored signal.
  trap : HUP INT QUIT TERM USR1 USR2 ALRM PIPE

  # Sets rigel_pid and rigel_start to this (sub)shell's own.
  rigel_know_thyself() {
    if read -r rigel_line 2>/dev/null </proc/self/stat; then
      rigel_pid=${rigel_line%% *}
      # Behind the name, which may hold anything, the start time is the 20th field.
      # shellcheck disable=SC2086
      set -- ${rigel_line##*) }
      rigel_start=${20}
    else
      rigel_pid=$(exec sh -c 'echo "$PPID"')
      # shellcheck disable=SC2046
      set -- $(LC_ALL=C ps -o lstart= -p "$rigel_pid")
      rigel_start=$1_$2_$3_$4_$5
    fi
  }

  rigel_know_thyself
  rigel_supervisor="$rigel_pid $rigel_start"

  # noclobber opens with O_EXCL: of all who try, one gets it.
  set -C
  printf 'supervisor %s\n' "$rigel_supervisor" >"$rigel_folder/token" || exit 75
  set +C

  # In the foreground, for what a shell starts with & ignores SIGINT and SIGQUIT.
  (
    trap : PIPE
    rigel_know_thyself
    printf 'rigel-process 1 %s %s %s %s %s %s end\n' "$rigel_supervisor" "$rigel_pid" "$rigel_start" \
      "$rigel_boot" "$rigel_namespace" "$rigel_stream" >"$rigel_folder/record" || exit 125
    # The agent may be gone by now; the run starts all the same.
    echo started >&3
    trap - PIPE
    exec "$@" 2>&1 3>&-
  )
  rigel_code=$?

  # <> writes over the blanks. Where even that finds no room, the output makes some.
  rigel_tries=0
  until printf 'rigel-exit 1 %s end\n' "$rigel_code" 1<>"$rigel_folder/exit"; do
    [ -d "$rigel_folder" ] && [ "$rigel_tries" -lt 3600 ] || exit 1
    rigel_tries=$((rigel_tries + 1))
    true >"$rigel_folder/output"
    sleep 1
  done
  exit 0
}
