#!/usr/bin/env bash
# Runs one rank on CPU cores of its own, chosen by its number on the node:  bind.sh COMMAND...
#
# The same for every launcher. Leaves a rank alone where others may use these CPUs: what Slurm or mpirun has bound already, a
# node shared with jobs that are not kept apart, more ranks than cores. GPUs need no binding: swinmpi takes the one of the
# same number.
rank=${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-${SLURM_LOCALID:-}}}
threads=${OMP_NUM_THREADS:-1}

# The CPUs of this process: one hardware thread of every core, then the second of every core.
allowed=$(awk '/^Cpus_allowed_list/ { print $2 }' /proc/self/status)
mapfile -t cpus < <(
    grep -Fxf <(for part in ${allowed//,/ }; do seq "${part%-*}" "${part#*-}"; done) \
        <(lscpu --parse=CORE,CPU | grep -v '^#' | LC_ALL=C sort -t , -k 1,1n -k 2,2n |
            awk -F , '{ print seen[$1]++, $1, $2 }' | LC_ALL=C sort -k 1,1n -k 2,2n | cut -d ' ' -f 3))

if [ -n "$rank" ] && [ "${#cpus[@]}" = "${SLURM_CPUS_ON_NODE:-}" ] && [ $(((rank + 1) * threads)) -le ${#cpus[@]} ]; then
    mine=("${cpus[@]:rank * threads:threads}")
    exec taskset --cpu-list "$(IFS=,; echo "${mine[*]}")" "$@"
fi
exec "$@"
