#!/usr/bin/env bash
# Runs a command of this repository in Debian 13, whose Slurm is 24.11 and whose Python is 3.13:
#   tests/trixie.sh make test-slurm
# Debian 13 is made by debootstrap, once, in /var/cache/vaehpc-tests, or in VAEHPC_TESTS_CACHE/vaehpc-tests; `make untest`
# removes it.
# Needs root, VAEHPC_TESTS_INSTALL=1 and debootstrap; without, it says so and runs nothing.
set -euo pipefail

repository=$(dirname "$(dirname "$(realpath "$0")")")
cache=${VAEHPC_TESTS_CACHE:-/var/cache}/vaehpc-tests
root=$cache/trixie
packages=(
    slurmctld slurmd slurmdbd slurm-client slurm-wlm-mysql-plugin munge mariadb-server
    python3 python3-venv ca-certificates git make procps
)
leave() { echo "$0: $1"; exit 0; }

[ "$(id -u)" = 0 ] || leave "only root can run Debian 13 beside this release"
[ "${VAEHPC_TESTS_INSTALL:-}" = 1 ] || leave "would make a Debian 13 in $root. VAEHPC_TESTS_INSTALL=1 lets it; make untest takes it away again"
"$(dirname "$0")/install.sh" trixie
command -v debootstrap > /dev/null || leave "needs debootstrap"

mkdir -p "$cache"
exec {lock}> "$cache/trixie.lock"
flock $lock
if [ ! -e "$root" ]; then
    rm -rf "$root.part" # nothing is ever mounted there
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 -E '/debian/?$')
    debootstrap --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" trixie "$root.part" "$mirror"
    rm -rf "$root.part"/var/cache/apt/archives/*.deb
    mkdir "$root.part/repository" "$root.part/venv"
    mv "$root.part" "$root"
fi
exec {lock}>&-

# All mounts are in a namespace of their own: outside of it nothing is ever mounted in $root, and all processes end with it.
# Devices are debootstrap's own nodes, not this machine's /dev.
inside='
    root=$1 repository=$2; shift 2
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    for path in /etc/ssl /etc/resolv.conf; do mount --bind -o ro "$path" "$root$path"; done
    mount --bind "$repository" "$root/repository"
    mount --bind "$root/venv" "$root/repository/.venv"
    # Not exec: bash, as the first process here, clears away the dead whom nobody waits for.
    chroot "$root" env --chdir=/repository --unset=TMPDIR --unset=MAKEFLAGS PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" || exit
'
mkdir -p "$repository/.venv"
exec unshare --mount --propagation=private --pid --fork --kill-child bash -euc "$inside" "$0" "$root" "$repository" "$@"
