#!/usr/bin/env bash
# Makes what Apptainer or Charliecloud runs of an archive of build.sh, as an ordinary user; convert.sh ARCHIVE TARGET
#   convert.sh images/train.tar train.sif     one file, opened where /dev/fuse may be used
#   convert.sh images/train.tar train.dir     a sandbox: a folder, opened everywhere
# It ends with the definition's %test, which imports TensorFlow.
set -euo pipefail

archive=$(realpath "${1:?the archive}")
target=$(realpath --canonicalize-missing "${2:?what is to be made}")
definition=$(dirname "$(realpath "$0")")/$(basename "$archive" .tar).def
options=(--force --build-arg "archive=$archive")
if command -v apptainer > /dev/null; then
    runtime=apptainer
    options+=(--ignore-subuid) # all files are root's: one user is enough, and no HOME is asked for
else
    runtime=singularity
fi
case $target in
    *.sif) options+=(--mksquashfs-args "-comp zstd -Xcompression-level 3") ;;
    *) options+=(--sandbox) ;;
esac
exec $runtime build "${options[@]}" "$target" "$definition"
