#!/usr/bin/env bash
# What a launcher takes for ssh, between the nodes of nodes.sh:  on_node.sh [-OPTION]... NODE WORD...
#
# As ssh does, it joins the words with spaces and lets a shell read them. The command sees a hostname and a /dev/shm of its
# own, so that MPI takes ranks of different nodes for what they are.
set -euo pipefail
while [[ $1 == -* ]]; do shift; done
node=$1
shift
exec nsenter --net="/run/netns/$node" unshare --uts --mount --ipc bash -c \
    'hostname "$1" && mount -t tmpfs tmpfs /dev/shm && exec bash -c "$2"' on_node.sh "$node" "$*"
