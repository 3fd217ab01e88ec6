#!/usr/bin/env bash
# Installs what builds and runs images in the tests of this folder: podman, debootstrap, Charliecloud and SquashFS's tools
# of Debian 12, and Apptainer, which Debian 12 lacks: sid's, made to run with this release's C library. Needs root.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
packages=(podman runc uidmap fuse-overlayfs squashfuse squashfs-tools debootstrap charliecloud-runtime ca-certificates)
is_installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}\n' "$@" 2>/dev/null | grep -cx installed)" = $# ]
}

is_installed "${packages[@]}" apptainer && exit 0
[ "$(id -u)" = 0 ] || { echo "$0: only root can install ${packages[*]} apptainer" >&2; exit 2; }

# One at a time, also with the script that installs Slurm: two test processes may come here together.
exec 9> /run/lock/vaehpc-install.lock
flock 9

export DEBIAN_FRONTEND=noninteractive
install_packages() { apt-get install --quiet --yes --no-install-recommends "$@" 9>&-; }
# The lists of packages may be absent, or name versions that are gone by now.
is_installed "${packages[@]}" || install_packages "${packages[@]}" || { apt-get update --quiet && install_packages "${packages[@]}"; }
is_installed apptainer && exit 0

# Sid's lists in a folder of their own: this machine's apt knows nothing of them. Its mirror and keyring serve.
folder=$(mktemp --directory)
trap 'rm -rf "$folder"' EXIT
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
python3 "$here/older_libc.py" "$folder"/apptainer_*.deb "$folder/apptainer.deb"
install_packages "$folder/apptainer.deb"
