# Runs on the node, outside of any container, before an element's tasks. The lines above set: batch (the batch's folder),
# marker (the file that a finished task leaves, or nothing), checkpoints (whether a task leaves one where a file `stop`
# appears), warn_seconds, max_restarts, max_crashes, exclude.
number=${SLURM_ARRAY_TASK_ID:-0}
element=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
node=${SLURMD_NODENAME:-$(hostname)}
events=$batch/$number.events
start="$element, restart ${SLURM_RESTART_COUNT:-0}"
IFS=$'\t' read -r -a directories < <(sed -n "$((number + 1))p" "$batch/elements")
warned='' ended=''

note() { # kind, detail
  printf '%s\t%s\t%s\t%s\n' "$(date +%s)" "$node" "$1" "$2" >> "$events"
}
count() { # how often this kind of event was noted
  cut -f 3 "$events" | grep -cx "$1"
}
progress() { # the newest checkpoint of every run
  for directory in "${directories[@]}"; do
    find "$directory/checkpoints" -maxdepth 1 -name 'step-*' -printf '%f\n' 2>/dev/null | sort -V | tail -n 1
  done
}
asked_by_hand() { # whether anybody made a file `stop`
  for directory in "${directories[@]}"; do [ ! -e "$directory/stop" ] || return 0; done
  return 1
}
is_newest() { # a node that was lost and comes back still runs this script; the element was started elsewhere
  [ "$(awk -F '\t' '$3 == "start" { last = $4 } END { print last }' "$events")" = "$start" ]
}
is_over() { # for Slurm, which has cancelled it or put it back; where its controller is away, nobody knows
  local shown
  shown=$(scontrol show job "$element")
  [[ -n $shown && ($shown != *JobState=RUNNING* || $shown != *" Restarts=${SLURM_RESTART_COUNT:-0} "*) ]] || ! is_newest
}
ask_to_stop() {
  if [ -n "$checkpoints" ] && is_newest; then
    for directory in "${directories[@]}"; do : > "$directory/stop"; done
  fi
}
patiently() { # Slurm's controller may be away for a while
  for _ in {1..30}; do ! scontrol "$@" || return 0; sleep 10; done
  return 1
}
again() { # why; Slurm ends what still runs
  ! is_over || exit 1
  note requeue "$1"
  patiently requeue "$element" && exit
  note given-up "scontrol requeue failed"
}
elsewhere() { # not on the nodes where a task of this element crashed, if there are others
  local crashed others
  crashed=$(awk -F '\t' '$3 == "crash" { print $2 }' "$events" | sort -u)
  others=$(sinfo --noheader --Node --partition="$SLURM_JOB_PARTITION" --states=idle,mixed,allocated --format=%N)
  others=$(sort -u <<< "$others" | grep -vxF "$crashed")
  [ -n "$others" ] || again "crash"
  ! is_over || exit 1
  note requeue "crash, not again on $(paste -sd, <<< "$crashed")"
  patiently requeuehold "$element"
  patiently update JobId="$element" ExcNodeList="$(paste -sd, <<< "${exclude:+$exclude$'\n'}$crashed")"
  patiently release "$element" && exit
  note given-up "scontrol requeuehold failed"
}
watch_clock() { # a task that has not left by itself when its time is up goes back into the queue all the same
  sleep "$((warn_seconds * 3 / 4))"
  [ "$(progress)" = "$before" ] || again "time limit, without a last checkpoint"
}
srun() { # bash runs a trap only while it waits
  command srun "$@" &
  step=$!
  while wait "$step"; code=$?; kill -0 "$step" 2>/dev/null; do :; done
  return "$code"
}

for directory in "${directories[@]}"; do [ -z "$checkpoints" ] || rm -f "$directory/stop"; done
note start "$start"
before=$(progress)
# Slurm sends USR2 before the time limit, TERM when the element is cancelled, preempted or put back into the queue.
trap 'warned=yes; ask_to_stop; watch_clock & clock=$!' USR2
trap 'ended=yes; [ -z "${clock:-}" ] || kill "$clock"; ask_to_stop' TERM
