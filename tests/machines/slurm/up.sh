#!/usr/bin/env bash
# A real Slurm of several nodes on this machine, for tests and for trying job scripts:  up.sh FOLDER [NODES] [CPUS]
#
# Needs root and the packages slurm-wlm, munge and libpmix2. Prints the path of its slurm.conf; commands find the cluster by
# `export SLURM_CONF=FOLDER/etc/slurm.conf`. All it writes is in FOLDER; down.sh ends it. Every node is a slurmd in namespaces
# of its own: its own hostname, and its own /dev/shm, so that MPI takes ranks of different nodes for what they are.
set -euo pipefail
folder=$(realpath -m "$1") nodes=${2:-3} cpus=${3:-2}
etc=$folder/etc run=$folder/run log=$folder/log
mkdir -p "$etc" "$run" "$log" "$folder/state"
mkdir -p -m 700 "$folder/munge"
chmod 755 "$folder" "$run"

# Neighbouring ports that nobody listens on: one for the controller, one for each node.
free_ports() {
    local base=$((20000 + RANDOM % 300 * 32)) port taken
    for _ in $(seq 100); do
        taken=no
        for port in $(seq "$base" $((base + nodes))); do
            if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then taken=yes; fi
        done
        if [ "$taken" = no ]; then echo "$base"; return; fi
        base=$((base + 32))
    done
    echo "up.sh: found no free ports" >&2
    return 1
}

# Slurm loads exactly libpmix.so from Debian's folder; the package without -dev has only libpmix.so.2.
pmix=/usr/lib/$(uname -m)-linux-gnu/pmix2/lib
if [ -e "$pmix/libpmix.so.2" ]; then ln -sfn libpmix.so.2 "$pmix/libpmix.so"; fi

port=$(free_ports)
(umask 077 && head -c 1024 /dev/urandom > "$folder/munge/key")
# --force: it need not be within reach of other users.
munged --force --key-file="$folder/munge/key" --socket="$run/munge" --pid-file="$run/munged.pid" \
    --log-file="$log/munged.log" --seed-file="$folder/munge/seed"

touch "$etc/plugstack.conf"
cat > "$etc/slurm.conf" <<CONF
ClusterName=swinmpi-tests
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits for the credentials of its first run to expire: 121 s unless told, 6 s at least.
AuthInfo=socket=$run/munge,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
TmpFS=$folder/tmp/%n
SlurmctldPidFile=$run/slurmctld.pid
SlurmdPidFile=$run/slurmd.%n.pid
SlurmctldLogFile=$log/slurmctld.log
SlurmdLogFile=$log/slurmd.%n.log
PlugStackConfig=$etc/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PropagateResourceLimits=NONE
ReturnToService=2
KillWait=5
MinJobAge=3600
SlurmdTimeout=10
NodeName=u[1-$nodes] NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + nodes))] CPUs=$cpus RealMemory=7000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
{ cat /etc/hosts; echo 127.0.0.1 $(seq -f u%.0f "$nodes"); } > "$etc/hosts"

export SLURM_CONF=$etc/slurm.conf
slurmctld -c
for number in $(seq "$nodes"); do
    mkdir -p "$folder/spool/u$number" "$folder/tmp/u$number"
    unshare --uts --mount --ipc "$(dirname "$0")/node.sh" "u$number" "$etc/hosts"
done
for _ in $(seq 100); do
    if [ "$(sinfo -h -o '%D %T' 2>/dev/null)" = "$nodes idle" ]; then echo "$SLURM_CONF"; exit 0; fi
    sleep 0.1
done
sinfo
echo "up.sh: the nodes are not ready after 10 s; see $log" >&2
exit 1
