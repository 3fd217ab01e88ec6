#!/usr/bin/env bash
# Installs Slurm, munge and MariaDB of Debian 12 for the tests of this folder; starts no service. Needs root.
set -euo pipefail

packages=(slurmctld slurmd slurmdbd slurm-client slurm-wlm-mysql-plugin munge mariadb-server)
all_installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | grep -cx installed)" = ${#packages[@]} ]
}

all_installed && exit 0
[ "$(id -u)" = 0 ] || { echo "$0: only root can install ${packages[*]}" >&2; exit 2; }

# One at a time: two test processes may come here together.
exec 9> /run/lock/vaehpc-install.lock
flock 9
all_installed && exit 0

# Packages start their services unless this file forbids it. One that is there already is put back afterwards.
policy=/usr/sbin/policy-rc.d
kept=$(mktemp --directory)
[ ! -e $policy ] || mv $policy "$kept/"
trap 'rm -f $policy; [ ! -e "$kept/policy-rc.d" ] || mv "$kept/policy-rc.d" $policy; rmdir "$kept"' EXIT
printf '#!/bin/sh\nexit 101\n' > $policy
chmod 755 $policy

export DEBIAN_FRONTEND=noninteractive
install_packages() { apt-get install --quiet --yes --no-install-recommends "${packages[@]}" 9>&-; }
# The lists of packages may be absent, or name versions that are gone by now.
install_packages || { apt-get update --quiet && install_packages; }
