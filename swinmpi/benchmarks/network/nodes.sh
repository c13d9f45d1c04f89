#!/usr/bin/env bash
# Runs a command on the first of several nodes with a network of their own:  nodes.sh NODES RATE COMMAND...
#
# The nodes n1, n2, ... are network namespaces around a bridge. RATE, as tc writes it (1gbit) or `none`, limits what each
# node sends and what it receives. Needs root. All of it lives in namespaces of this script, so nothing is left when it
# ends, however it ends. The command reaches the other nodes by on_node.sh, which launchers take for ssh.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
if [ "${1:-}" != --inside ]; then
    # unshare itself lets no signal but KILL end it, and its end is that of everything inside.
    setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc "$here/nodes.sh" --inside "$@" &
    trap 'kill -KILL $!; exit 130' INT
    trap 'kill -KILL $!; exit 143' TERM
    wait $!
    exit
fi
nodes=$2 rate=$3
shift 3

# limit DEVICE [OPTION OF IP AND TC]...: what it sends. A token bucket lets its burst pass unlimited, so it is small; TCP then
# must not hand over larger pieces, which the bucket would have to cut up.
limit() {
    if [ "$rate" = none ]; then return; fi
    local device=$1
    shift
    ip "$@" link set "$device" gso_max_size 16384
    tc "$@" qdisc add dev "$device" root tbf rate "$rate" burst 32kb latency 50ms
}

mount -t tmpfs tmpfs /run
mkdir /run/netns
cat /etc/hosts > /run/hosts
ip link set lo up
ip link add switch type bridge
ip link set switch up
for number in $(seq "$nodes"); do
    node=n$number port=port$number
    ip netns add "$node"
    ip link add eth0 netns "$node" type veth peer name "$port"
    ip link set "$port" master switch up
    ip -n "$node" address add "10.77.0.$number/24" dev eth0
    ip -n "$node" link set lo up
    ip -n "$node" link set eth0 up
    limit eth0 -n "$node"
    limit "$port"
    echo "10.77.0.$number $node" >> /run/hosts
done
mount --bind /run/hosts /etc/hosts

"$here/on_node.sh" n1 "$(printf '%q ' "$@")"
