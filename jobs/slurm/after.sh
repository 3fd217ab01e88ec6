# And after them. Slurm's word on how they ended is not enough: srun says 0 when a node is lost.
code=$?
[ -z "$clock" ] || kill "$clock" 2>/dev/null
missing='' finished=''
for directory in "${directories[@]}"; do
  [ -z "$marker" ] || if [ -e "$directory/$marker" ]; then finished=yes; else missing=yes; fi
done
leave() { # well where a run of a pack has its result: its statistics wait for this element's success
  [ -n "$finished" ]
  exit
}
if [ "$code" = 0 ] && [ -z "$missing" ]; then
  note 'done' ''
  exit 0
elif [ -n "$ended" ]; then # Slurm starts it again, unless it was cancelled or its time is up
  ! is_newest || note ended "${warned:+after its time limit}"
  exit 1
elif is_over; then
  exit 1
elif [ "$code" = 143 ]; then # TERM went to the tasks alone: Slurm preempts after a time of grace
  why="asked to leave"
elif [ "$code" != 0 ]; then
  note crash "$code" || exit 1
  if [ "$code" = 78 ]; then # the task says that no other node would do: HOPELESS in vaehpc/command.py
    note given-up "no other try would do better"
  elif [ "$(count crash)" -gt "$max_crashes" ]; then
    note given-up "max_crashes = $max_crashes"
  else
    again "crash" "$(crash_nodes)"
  fi
  leave
elif [ -z "$warned" ] && asked_by_hand; then
  note left ''
  leave
elif [ "$(progress)" = "$before" ]; then
  note given-up "no new checkpoint"
  leave
else
  why=${warned:+time limit}
fi
if [ "$(count requeue)" -ge "$max_restarts" ]; then
  note given-up "max_restarts = $max_restarts"
else
  # Elements that began together are warned together: they do not ask the controller all at once, where there is time.
  [ -z "$warned" ] || [ "$SECONDS" -gt $((warn_seconds / 2)) ] || sleep $((RANDOM % (warn_seconds / 10 + 1)))
  again "${why:-asked to leave}"
fi
leave
