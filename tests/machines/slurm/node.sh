#!/usr/bin/env bash
# One node of up.sh, inside its namespaces:  node.sh NAME HOSTS
set -euo pipefail
hostname "$1"
mount --bind "$2" /etc/hosts
mount -t tmpfs -o size=4g tmpfs /dev/shm
exec slurmd -N "$1"
