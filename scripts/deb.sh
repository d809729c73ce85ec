#!/bin/sh
# deb.sh VERSION ARCH FOLDER PACKAGE: makes the Debian package of the programs and parts in
# FOLDER (thurward, kernel.elf, firewall.elf, firewall-dot.elf, toolchain.json, man/*.1, completions/). The same input gives the
# same package: times are SOURCE_DATE_EPOCH, without it that of the last commit. NFPM names
# nfpm, which is built where it is not given.
set -eu
cd "$(dirname "$0")/.."

VERSION=$1 ARCH=$2 OUT=$3 package=$4
# A version of Debian's begins with a digit.
case $VERSION in
v[0-9]*) VERSION=${VERSION#v} ;;
[0-9]*) ;;
*) VERSION=0~$VERSION ;;
esac
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export VERSION ARCH OUT SOURCE_DATE_EPOCH

# The parts are for the virtual machine, whatever the host is; lintian wants that said.
other='#'
[ "$ARCH" = amd64 ] || other=
sed "s/^@OTHER@/$other/" packaging/deb/lintian-overrides >"$OUT/lintian-overrides"
rm -rf "$OUT/man1"
mkdir -p "$OUT/man1"
for page in "$OUT"/man/*.1; do gzip -9nc "$page" >"$OUT/man1/${page##*/}.gz"; done

gzip -9n >"$OUT/changelog.gz" <<EOF
thurward ($VERSION) unstable; urgency=medium

  * See CHANGELOG.md of this version:
    https://github.com/thurward/thurward/blob/main/CHANGELOG.md

 -- thurward maintainers <maintainers@users.noreply.github.com>  $(LC_ALL=C TZ=UTC date -R -d "@$SOURCE_DATE_EPOCH")
EOF
if [ -z "${NFPM:-}" ]; then
	${GO:-go} build -C tools/nfpm -trimpath -o ../../build/nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm
	NFPM=build/nfpm
fi
"$NFPM" package --config packaging/deb/nfpm.yaml --packager deb --target "$package"
