#!/usr/bin/env bash
# Installs what tests on a real Slurm and of real images need, on Debian 12, and takes it away again.
#   tests/install.sh slurm     Slurm, munge and MariaDB; no service is started
#   tests/install.sh images    podman, debootstrap, Charliecloud, SquashFS's tools; and Apptainer, which Debian 12 lacks:
#                              sid's, made to run with this release's C library
#   tests/install.sh trixie    debootstrap, for tests/trixie.sh
#   tests/install.sh remove    all that these have installed, the tests' user, images and their layers, Debian 13
# Needs root, and VAEHPC_TESTS_INSTALL=1 where anything is missing; without, it says so and leaves things as they are.
set -euo pipefail

kept=/var/lib/vaehpc-tests # packages that were not here before
cache=${VAEHPC_TESTS_CACHE:-/var/cache}/vaehpc-tests
case ${1:-} in
    slurm) packages=(slurmctld slurmd slurmdbd slurm-client slurm-wlm-mysql-plugin munge mariadb-server) ;;
    images) packages=(podman runc uidmap fuse-overlayfs squashfuse squashfs-tools debootstrap charliecloud-runtime ca-certificates apptainer) ;;
    trixie) packages=(debootstrap) ;;
    remove) ;;
    *) echo "usage: $0 slurm | images | trixie | remove" >&2; exit 2 ;;
esac
leave() { echo "$0: $1"; exit 0; }

if [ "$1" = remove ]; then
    [ "$(id -u)" = 0 ] || leave "only root can remove what was installed"
    ! grep -q " $(realpath -m "$cache")/" /proc/self/mounts || leave "something is mounted in $cache"
    [ ! -s $kept/packages ] || xargs --arg-file=$kept/packages env DEBIAN_FRONTEND=noninteractive apt-get purge --quiet --yes
    ! id vaetest > /dev/null 2>&1 || userdel vaetest
    rm -rf $kept "$cache"
    exit 0
fi

is_installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}\n' "$@" 2>/dev/null | grep -cx installed)" = $# ]
}
command -v dpkg-query > /dev/null || leave "needs Debian's packages"
is_installed "${packages[@]}" && exit 0
[ "$(id -u)" = 0 ] || leave "only root can install ${packages[*]}"
[ "${VAEHPC_TESTS_INSTALL:-}" = 1 ] || leave "would install ${packages[*]}. VAEHPC_TESTS_INSTALL=1 lets it; make untest takes them away again"
echo "$0: installs ${packages[*]}; make untest takes them away again"

# Packages start their services unless this file forbids it. One that is there already is put back afterwards.
policy=/usr/sbin/policy-rc.d
folder=$(mktemp --directory)
[ ! -e $policy ] || mv $policy "$folder/"
installed() { dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort; }
installed > "$folder/before"
finish() {
    mkdir -p $kept
    installed | comm -13 "$folder/before" - >> $kept/packages
    rm -f $policy
    [ ! -e "$folder/policy-rc.d" ] || mv "$folder/policy-rc.d" $policy
    rm -rf "$folder"
}
trap finish EXIT
printf '#!/bin/sh\nexit 101\n' > $policy
chmod 755 $policy

export DEBIAN_FRONTEND=noninteractive
install_packages() { apt-get install --quiet --yes --no-install-recommends "$@"; }

mapfile -t of_debian < <(printf '%s\n' "${packages[@]}" | grep -vx apptainer)
# The lists of packages may be absent, or name versions that are gone by now.
install_packages "${of_debian[@]}" || { apt-get update --quiet && install_packages "${of_debian[@]}"; }

if [ "$1" = images ]; then
    # Sid's lists in a folder of their own: this machine's apt knows nothing of them. Its mirror and keyring serve.
    mkdir -p "$folder"/{lists,archives}/partial
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 -E '/debian/?$')
    echo "deb $mirror sid main" > "$folder/sources.list"
    sid=(
        -o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache::archives=$folder/archives"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root
    )
    apt-get "${sid[@]}" --quiet update
    (cd "$folder" && apt-get "${sid[@]}" --quiet download apptainer)
    python3 "$(dirname "$(realpath "$0")")/containers/older_libc.py" "$folder"/apptainer_*.deb "$folder/apptainer.deb"
    install_packages "$folder/apptainer.deb"
fi
