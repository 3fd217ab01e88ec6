#!/usr/bin/env bash
# Builds both images with podman and leaves them as archives: build.sh FOLDER -> FOLDER/train.tar, FOLDER/analysis.tar
#
# From the environment:
#   BASE_IMAGE   another base than the Dockerfile's
#   TRAIN_LOCK   train-cpu.txt for an image without CUDA; train-gpu.txt otherwise
#   CA_BUNDLE    certificates behind which the package index is reached; they stay out of the image
set -euo pipefail

folder=$(realpath --canonicalize-missing "${1:?where the archives go}")
cd "$(dirname "$0")/.."
mkdir -p "$folder"

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' vaehpc/__init__.py)
revision=$(git describe --always --dirty=.dirty --exclude='*' --abbrev=12 2>/dev/null || true)
# One moment for all files and layers: who builds the same again gets the same. Packages stay as they are from one version
# to the next.
moment=${SOURCE_DATE_EPOCH:-315532800}
options=(
    --network host --timestamp "$moment" --build-arg "SOURCE_DATE_EPOCH=$moment"
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision"
)
[ -z "${BASE_IMAGE:-}" ] || options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
[ -z "${TRAIN_LOCK:-}" ] || options+=(--build-arg "TRAIN_LOCK=$TRAIN_LOCK")
[ -z "${CA_BUNDLE:-}" ] || options+=(--secret "id=ca,src=$CA_BUNDLE")

for target in analysis train; do
    image=localhost/vaehpc-$target:$version
    podman build --file containers/Dockerfile --target "$target" --tag "$image" "${options[@]}" .
    rm -f "$folder/$target.tar"
    podman save --quiet --format docker-archive --output "$folder/$target.tar" "$image"
done
chmod a+r "$folder"/{train,analysis}.tar
ls -l --human-readable "$folder"/{train,analysis}.tar
