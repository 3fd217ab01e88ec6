# And after them. Slurm's word on how they ended is not enough: srun says 0 when a node is lost.
code=$?
trap '' USR2 TERM
[ -z "${clock:-}" ] || kill "$clock" 2>/dev/null
missing=''
for directory in "${directories[@]}"; do
  [ -z "$marker" ] || [ -e "$directory/$marker" ] || missing=yes
done
if [ "$code" = 0 ] && [ -z "$missing" ]; then
  note 'done' ''
  exit 0
elif [ -n "$ended" ]; then # Slurm starts it again, unless it was cancelled
  note ended ''
elif [ -z "$warned" ] && [ "$code" != 0 ]; then
  note crash "$code"
  if [ "$(count crash)" -gt "$max_crashes" ]; then
    note given-up "max_crashes = $max_crashes"
  else
    elsewhere
  fi
elif [ -z "$warned" ] && asked_by_hand; then
  note left ''
elif [ "$(progress)" = "$before" ]; then
  note given-up "no new checkpoint"
elif [ "$(count requeue)" -ge "$max_restarts" ]; then
  note given-up "max_restarts = $max_restarts"
elif [ -n "$warned" ]; then
  again "time limit"
else
  again "asked to leave"
fi
exit 1
