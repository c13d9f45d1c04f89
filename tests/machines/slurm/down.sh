#!/usr/bin/env bash
# Ends the Slurm that up.sh started in FOLDER, its jobs first:  down.sh FOLDER
set -uo pipefail
folder=$(realpath -m "$1")
export SLURM_CONF=$folder/etc/slurm.conf
jobs=$(squeue -h -o %A)
if [ -n "$jobs" ]; then scancel $jobs; fi
for _ in $(seq 100); do
    if [ -z "$(squeue -h)" ]; then break; fi
    sleep 0.1
done
for file in "$folder"/run/slurmd.*.pid "$folder"/run/slurmctld.pid "$folder"/run/munged.pid; do
    if [ -f "$file" ]; then kill "$(cat "$file")"; fi
done
exit 0
