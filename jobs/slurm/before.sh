# Runs on the node, outside of any container, before an element's tasks. The lines above set: batch (the batch's folder),
# marker (the file that a finished task leaves, or nothing), needs (the file without which a directory is passed over, or
# nothing), checkpoints (whether a task leaves one where a file `stop` appears), warn_seconds, max_restarts, max_crashes,
# exclude.
set +efu +o pipefail # whatever shells begin with at this site
IFS=$' \t\n'
export SLURM_EXPORT_ENV=ALL # where sbatch was told --export=NONE, srun would start tasks without the environment that is set here
number=${SLURM_ARRAY_TASK_ID:-0}
element=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
node=${SLURMD_NODENAME:-$(hostname)}
events=$batch/$number.events
start="$element, restart ${SLURM_RESTART_COUNT:-0}"
log=$batch/${element}_0_log
directories=() warned='' ended='' clock='' left=''
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # newer releases of srun do not take it over from sbatch

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
is_newest() { # a node that was lost and comes back still runs this script; the element was started elsewhere
  awk -F '\t' -v own="$start" '$3 == "start" { last = NR } $3 == "start" && $4 == own { mine = NR }
    END { exit mine && mine != last }' "$events"
}
is_over() { # for Slurm, which has cancelled it or put it back; where its controller is away, nobody knows
  local shown
  shown=$(scontrol show job "$element")
  [[ -n $shown && ($shown != *JobState=RUNNING* || $shown != *" Restarts=${SLURM_RESTART_COUNT:-0} "*) ]] || ! is_newest
}
ask_to_stop() { # with the element's name in the file; an empty one was made by hand
  if [ -n "$checkpoints" ] && is_newest; then
    for directory in "${directories[@]}"; do [ -e "$directory/stop" ] || echo "$element" > "$directory/stop"; done
  fi
}
asked_by_hand() {
  for directory in "${directories[@]}"; do [ ! -e "$directory/stop" ] || [ -s "$directory/stop" ] || return 0; done
  return 1
}
again() { # why, nodes to leave out; Slurm ends what still runs
  ! is_over || exit 1
  note requeue "$1${2:+, not again on $2}" || exit 1 # a full disk: what is not noted cannot be counted
  for _ in {1..30}; do # the controller may be away for a while
    if scontrol requeue "$element"; then
      [ -z "${2:-}" ] || scontrol update JobId="$element" ExcNodeList="${exclude:+$exclude,}$2"
      exit
    fi
    sleep 10
    ! is_over || exit 1
  done
  note given-up "scontrol requeue failed"
}
crash_nodes() { # where this element crashed, if Slurm has other nodes for it
  local nodes
  nodes=$(awk -F '\t' '$3 == "crash" { print $2 }' "$events" | sort -u | paste -sd,)
  ! sbatch --test-only --exclude="${exclude:+$exclude,}$nodes" "$0" >&2 || echo "$nodes"
}
watch_clock() { # a task that has not left by itself when its time is up goes back into the queue all the same
  sleep "$((warn_seconds * 3 / 4))"
  [ "$(progress)" = "$before" ] || again "time limit, without a last checkpoint"
}
warn() { # starts nothing in the background: `$!` below would be that
  warned=yes SECONDS=0
  ask_to_stop
}
end() {
  ended=yes
  [ -z "$clock" ] || kill "$clock"
  ask_to_stop
}
srun() { # in the background, so that traps run; not in `wait`: one that runs there as the step ends loses its exit status
  command srun "$@" &
  step=$!
  while kill -0 "$step" 2>/dev/null; do
    sleep 0.5
    [ -z "$warned" ] || [ -n "$clock$ended" ] || { watch_clock & clock=$!; }
  done
  trap '' USR2 TERM
  wait "$step"
}

elsewhere() { # a node that does not see the batch's folder can neither note nor log anything: it is left out
  local nodes
  trap '' USR2 TERM
  nodes=$(scontrol show job "$element" | sed -n 's/^ *ExcNodeList=//p')
  [ -n "$nodes" ] && [ "$nodes" != '(null)' ] || nodes=$exclude
  nodes=${nodes:+$nodes,}$node
  sbatch --test-only --exclude="$nodes" "$0" && scontrol requeue "$element" && scontrol update JobId="$element" ExcNodeList="$nodes"
  exit 53 # Slurm's own number where it cannot open a log
}

[ -d "$batch" ] || elsewhere
exec >> "$log.out" 2>> "$log.err"
# Slurm sends USR2 before the time limit, TERM when the element is cancelled, preempted or put back into the queue.
trap warn USR2
trap end TERM
IFS=$'\t' read -r -a given < <(sed -n "$((number + 1))p" "$batch/elements")
for directory in "${given[@]}"; do
  if [ -z "$needs" ] || [ -e "$directory/$needs" ]; then directories+=("$directory"); fi
done
for directory in "${directories[@]}"; do [ ! -s "$directory/stop" ] || [ -z "$checkpoints" ] || rm "$directory/stop"; done
before=$(progress)
note start "$start"
for directory in "${directories[@]}"; do [ -n "$marker" ] && [ -e "$directory/$marker" ] || left=yes; done
if [ -z "$left" ]; then # started once more than needed
  note 'done' ''
  exit 0
fi
