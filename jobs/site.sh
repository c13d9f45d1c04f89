# What differs from cluster to cluster, and below it what all job scripts share. Sourced by jobs/*.slurm; bash.
#
# Edit the settings here, or export a variable of the same name before sbatch, for one job. Paths may hold spaces.

# Modules to load, in this order: "python/3.11 openmpi/4.1 cuda/12.4".
SWINMPI_MODULES=${SWINMPI_MODULES-}
# Virtual environment that holds swinmpi. Empty: the commands that are on PATH where sbatch is called.
SWINMPI_VENV=${SWINMPI_VENV-}
# Apptainer image that holds swinmpi, instead of a virtual environment.
SWINMPI_CONTAINER=${SWINMPI_CONTAINER-}
# What starts the ranks: auto, mpirun, srun --mpi=pmix, srun --mpi=pmi2, or either with options of its own.
SWINMPI_LAUNCHER=${SWINMPI_LAUNCHER-auto}
# Whether each rank is kept on CPU cores of its own: yes or no.
SWINMPI_BIND=${SWINMPI_BIND-yes}
# A job that has been requeued this often asks for a person instead.
SWINMPI_MAX_RESTARTS=${SWINMPI_MAX_RESTARTS-100}

# Account, partition and GPUs are read by sbatch before any job script runs. Either give them to sbatch, or uncomment these
# lines and source this file in the shell that submits.
# export SBATCH_ACCOUNT=project
# export SBATCH_PARTITION=normal
# export SBATCH_GPUS_PER_NODE=4     # and one rank for each: sbatch --nodes=2 --ntasks=8

# ---- What the job scripts share: nothing to edit from here on. ----
FRUITLESS_S=600

# Load the environment and find the launcher. Exit codes of this and all below: 0, 1, 2, 3, 75 as in docs/cluster.md.
start_job() {
    stop_requested='' cancelled='' running='' stop_signal=TERM
    trap 'stop_requested=yes; pass_on_stop' USR2
    trap 'cancelled=yes; pass_on_stop' TERM
    load_modules
    if [ -n "$SWINMPI_VENV" ]; then
        . "$SWINMPI_VENV/bin/activate" || refuse "SWINMPI_VENV: expected a virtual environment, got $SWINMPI_VENV"
    fi
    inside=()
    if [ -n "$SWINMPI_CONTAINER" ]; then
        inside=(apptainer exec ${SLURM_GPUS_ON_NODE:+--nv} --bind "$PWD" "$SWINMPI_CONTAINER")
    fi
    "${inside[@]}" swinmpi-sample --version > /dev/null ||
        refuse "swinmpi is not installed here; activate its environment before sbatch, or name it in $jobs/site.sh"
    export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} SLURM_EXPORT_ENV=ALL
}

# compute COMMAND ARGUMENT...: run swinmpi-COMMAND on all ranks. Returns its exit code; or, because a launcher that lost a node
# may return anything, 0 too: 75 where the files tell that it is not finished but further than before, else not 0.
compute() {
    local code before after
    before=$(finished "$@" 2> /dev/null)
    if [ $? = 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
        say "was finished before the restart"
        return 0
    fi
    find_launcher
    say "swinmpi-$1 on ${SLURM_NTASKS:-1} ranks, ${SLURM_JOB_NODELIST-here}, by ${launcher[*]}"
    run_until_over "${launcher[@]}" "${inside[@]}" "swinmpi-$1" "${@:2}"
    code=$?
    case $code in
        1 | 2) return "$code" ;;
        75)
            after=$(finished "$@" 2> /dev/null) && return 0
            # A start that others cut short is no reason to give up.
            if [ "${after:-0}" -gt "${before:-0}" ] || [ "${SLURM_RESTART_COUNT:-0}" = 0 ] ||
                [ "$SECONDS" -lt "$FRUITLESS_S" ]; then return 75; fi
            say "finished nothing in $SECONDS s, and would not the next time: give it a longer --time"
            return 1 ;;
    esac
    if after=$(finished "$@"); then
        # The files are there, whatever became of the launcher.
        if [ "$code" = 3 ]; then return 3; else return 0; fi
    fi
    say "swinmpi-$1 ended with code $code and is not finished"
    if [ "${after:-0}" -gt "${before:-0}" ]; then return 75; fi
    case $code in 0 | 3) return 1 ;; *) return "$code" ;; esac
}

# compute_alone COMMAND ARGUMENT...: the same for a command of one process, which cannot go on where it stopped.
compute_alone() {
    local code
    run_until_over "${inside[@]}" "swinmpi-$1" "${@:2}"
    code=$?
    if [ "$code" = 75 ] && [ -z "$cancelled" ]; then
        say "swinmpi-$1 cannot go on where it stopped: give it a longer --time"
        return 1
    fi
    return "$code"
}

# end_job CODE: the last line of a job script. 75 puts the job back into the queue, unless it was cancelled.
end_job() {
    if [ "$1" != 75 ]; then exit "$1"; fi
    if [ -n "$cancelled" ] || [ "${SLURM_RESTART_COUNT:-0}" -ge "$SWINMPI_MAX_RESTARTS" ]; then
        say "ends unfinished after ${SLURM_RESTART_COUNT:-0} restarts; the same sbatch command goes on from here"
        exit 75
    fi
    say "goes back into the queue (restart $((${SLURM_RESTART_COUNT:-0} + 1)))"
    # With the requeueing Slurm ends this script and what it runs.
    trap '' TERM
    # By its own number, one task of every array would requeue all of them.
    scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}" ||
        say "cannot be requeued; the same sbatch command goes on from here"
    exit 75
}

# take_output ARGUMENT...: fill the array `arguments`, IN OUT turned into IN --output OUT. With --output, or more of them, all
# are inputs.
take_output() {
    arguments=("$@")
    if [ $# -lt 2 ] || [[ $1 = -* || $2 = -* || ${3--} != -* ]] || has --output "$@"; then return; fi
    arguments=("$1" --output "$2" "${@:3}")
}

# has OPTION ARGUMENT...: whether OPTION, or OPTION=VALUE, is among the arguments.
has() {
    local word
    for word in "${@:2}"; do
        if [[ $word = "$1" || $word = "$1="* ]]; then return 0; fi
    done
    return 1
}

say() { echo "job ${SLURM_JOB_ID:-}: $*" >&2; }

refuse() {
    say "$@"
    exit 2
}

load_modules() {
    local init
    if [ -z "$SWINMPI_MODULES" ]; then return; fi
    for init in /etc/profile.d/modules.sh /etc/profile.d/lmod.sh; do
        if ! command -v module > /dev/null && [ -f "$init" ]; then . "$init"; fi
    done
    module load $SWINMPI_MODULES || refuse "module load $SWINMPI_MODULES failed; see SWINMPI_MODULES in $jobs/site.sh"
}

# Fill `launcher`, the words in front of a command, and `stop_signal`, what it hands on to the ranks.
find_launcher() {
    local mpirun
    if [ "$SWINMPI_LAUNCHER" = auto ]; then SWINMPI_LAUNCHER=$(fitting_launcher) || exit 2; fi
    read -ra launcher <<< "$SWINMPI_LAUNCHER"
    stop_signal=USR2
    case ${launcher[0]} in
        srun)
            # Steps do not inherit it from the job, and with it mpirun's own daemons would get the cores of one rank.
            export SRUN_CPUS_PER_TASK=$OMP_NUM_THREADS
            # A rank that is killed ends the others, which MPICH under srun would let wait for ever; not at once, because
            # ranks that leave together leave one after the other.
            launcher+=(--wait=15) ;;
        *)
            unset SRUN_CPUS_PER_TASK
            mpirun=$("${launcher[0]}" --version) || refuse "SWINMPI_LAUNCHER: ${launcher[0]} cannot be started"
            launcher+=(-n "${SLURM_NTASKS:-1}")
            # MPICH's mpirun dies of USR2, Open MPI's of TERM. Cores are given out by bind.sh.
            if [[ $mpirun = *"Open MPI"* ]]; then launcher+=(--bind-to none); else stop_signal=TERM; fi ;;
    esac
    if [ "$SWINMPI_BIND" = yes ]; then launcher+=("$jobs/bind.sh"); fi
}

# The launcher of the MPI library that mpi4py loads: the mpirun beside it, else srun. mpirun in a container knows one node only.
fitting_launcher() {
    local library plugin=pmi2
    library=$("${inside[@]}" python3 -c 'import mpi4py; mpi4py.rc(initialize=False)
from mpi4py import MPI; print(MPI.Get_library_version().rstrip("\0"))') ||
        refuse "mpi4py finds no MPI library; load its module in $jobs/site.sh or pip install 'swinmpi[mpi]'"
    if [[ $library = *"Open MPI"* ]]; then plugin=pmix; fi
    if [ -z "$SWINMPI_CONTAINER" ] && [ "$(make_of "$library")" = "$(make_of "$(mpirun --version 2>&1)")" ]; then
        echo mpirun
    elif srun --mpi=list 2>&1 | grep -qw "$plugin"; then
        echo "srun --mpi=$plugin"
    else
        refuse "no mpirun for ${library%%$'\n'*}, and srun lacks --mpi=$plugin; set SWINMPI_LAUNCHER in $jobs/site.sh"
    fi
}

# Whose library or mpirun this text is from.
make_of() {
    case $1 in
        *"Open MPI"*) echo openmpi ;;
        *HYDRA* | *MPICH* | *"Intel(R) MPI"* | *MVAPICH*) echo mpich ;;
        *) echo "unknown: $1" ;;
    esac
}

# run_until_over WORD...: run the command so that stops are passed on to it; returns its exit code, 75 where the stop ended it.
run_until_over() {
    local code waited_from
    if [ -n "$stop_requested$cancelled" ]; then return 75; fi
    "$@" < /dev/null &
    running=$! passed_on=''
    if [ -n "$stop_requested$cancelled" ]; then pass_on_stop; fi
    interrupted=yes
    while [ -n "$interrupted" ]; do
        interrupted=''
        wait "$running"
        code=$?
    done
    running=''
    # A stop may come before the ranks know what to do with it: then they die of it, and nothing is lost either.
    if [ -n "$passed_on" ] && [[ $code != [0123] ]]; then code=75; fi
    return "$code"
}

# Called by a signal, once for each run: more than one stop can kill what is being saved.
pass_on_stop() {
    interrupted=yes
    if [ -z "$running" ] || [ -n "$passed_on" ]; then return; fi
    passed_on=yes
    say "is asked to stop"
    kill -s "$stop_signal" "$running"
}

# finished COMMAND ARGUMENT...: whether the files say so; prints how far it is.
finished() {
    # The installed swinmpi, not the one of a checkout that the job was submitted in (Python 3.11 and later).
    PYTHONSAFEPATH=1 "${inside[@]}" python3 - "$@" < "$jobs/finished.py"
}
