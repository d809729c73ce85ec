#!/usr/bin/env bash
# reproduce.sh VERSION COMMIT: makes the release of this checkout once more, in a folder
# of another depth and with an empty build cache, and compares it with build/release, byte
# for byte. The tools that only run meanwhile are taken from the cache that there is.
set -euo pipefail
cd "$(dirname "$0")/.."
test -e build/release/SHA256SUMS || scripts/release.sh "$1" "$2" >/dev/null
other=$(mktemp -d)
trap 'rm -rf "$other"' EXIT
tree=$other/a/deeper/folder
mkdir -p "$tree"
git ls-files -z | xargs -0 tar -cf - | tar -C "$tree" -xf -
# cyclonedx-gomod wants a repository with a commit, whose name the script takes out.
git -C "$tree" init -q
git -C "$tree" add -A
git -C "$tree" -c user.name=reproduce -c user.email=reproduce@invalid commit -qm reproduce
made=$(git log -1 --format=%ct)
(umask 077 && cd "$tree" && SOURCE_DATE_EPOCH=$made TZ=Pacific/Chatham LC_ALL=C.UTF-8 GOAMD64=v3 GOCACHE=$other/cache TOOLCACHE=$(go env GOCACHE) scripts/release.sh "$1" "$2" >/dev/null)
if ! diff build/release/SHA256SUMS "$tree/build/release/SHA256SUMS"; then
	echo "the second release is another one" >&2
	exit 1
fi
echo "the second release is the same: $(wc -l <build/release/SHA256SUMS) files"
