#!/usr/bin/env bash
# release.sh VERSION COMMIT: all that is published, into build/release. The same commit
# gives the same bytes: times are the epoch, in packages the commit's (SOURCE_DATE_EPOCH says
# another), names are sorted, owners are root. Nothing is signed here: keys are not where
# things are built (docs/release.md).
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 commit=$2
made=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=0 CGO_ENABLED=0
umask 022
out=build/release parts=internal/host/parts/embedded
rm -rf "$out" "$parts"
mkdir -p "$out" "$parts"
# Tools that only run here may be compiled in a cache of their own (TOOLCACHE).
toolcache=${TOOLCACHE:-$(go env GOCACHE)}
part() { go run ./internal/host/kernelbuild/part -version "$version" -commit "$commit" "$@"; }

echo "release: kernel, firewall, firewall with TLS"
part "$parts"/{kernel.elf,firewall.elf,firewall-dot.elf,toolchain.json}

for arch in amd64 arm64; do
	echo "release: thurward and thurward-sigstore for linux/$arch"
	bin=build/stage/$arch
	mkdir -p "$bin"
	part -arch "$arch" "$bin/thurward" "$bin/thurward-sigstore"
	cp "$bin/thurward" "$out/thurward_${version}_linux_$arch"
	cp "$bin/thurward-sigstore" "$out/thurward-sigstore_${version}_linux_$arch"
done
# What runs here to make the rest.
case $(uname -m) in aarch64 | arm64) here=build/stage/arm64/thurward ;; *) here=build/stage/amd64/thurward ;; esac

echo "release: manual pages, completions"
rm -rf build/stage/man
mkdir -p build/stage/man
go run -tags man ./cmd/thurward man build/stage/man
scripts/completions.sh "$here" build/stage/completions
for d in man completions; do
	tar -C build/stage --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar -cf - $d |
		gzip -n9 >"$out/thurward_${version}_$d.tar.gz"
done

echo "release: an image of rules.yaml"
(cd "$out" && "../../$here" build -f ../../rules.yaml -o "thurward_$version.img" --provenance) >/dev/null

echo "release: OCI layouts"
oci() { go run ./internal/host/oci/layout -tag "$version" "$@"; }
oci -o "$out/thurward_$version.oci.tar" -entrypoint /usr/bin/thurward \
	amd64:usr/bin/thurward=build/stage/amd64/thurward amd64:usr/bin/thurward-sigstore=build/stage/amd64/thurward-sigstore \
	arm64:usr/bin/thurward=build/stage/arm64/thurward arm64:usr/bin/thurward-sigstore=build/stage/arm64/thurward-sigstore
img=$out/thurward_$version.img
oci -o "$out/thurward-image_$version.oci.tar" -title "thurward: image of rules.yaml" \
	"amd64:boot/thurward.img=$img" "amd64:boot/thurward.img.provenance.json=$img.provenance.json" "amd64:boot/thurward.img.sbom.json=$img.sbom.json"

echo "release: list of what the command line links (CycloneDX)"
GOCACHE=$toolcache go tool -modfile=tools/go.mod cyclonedx-gomod app -json -noserial -main cmd/thurward -output "$out/thurward_$version.sbom.json" .
# It writes when and with which build of itself, and versions of a checkout of git.
python3 - "$out/thurward_$version.sbom.json" "$version" <<'PY'
import json, sys
path, version = sys.argv[1:]
b = json.load(open(path))
b["metadata"].pop("timestamp", None)
b["metadata"].pop("tools", None)
own = b["metadata"]["component"]
old = own.get("version", "")
s = json.dumps(b, indent=2, sort_keys=True)
if old:
    s = s.replace(old, version)
open(path, "w").write(s + "\n")
PY

echo "release: packages for Debian"
for arch in amd64 arm64; do
	cp "$parts"/{*.elf,toolchain.json} "build/stage/$arch/"
	cp -r build/stage/man build/stage/completions "build/stage/$arch/"
	GOCACHE=$toolcache SOURCE_DATE_EPOCH=$made scripts/deb.sh "$version" "$arch" "build/stage/$arch" "$out/thurward_${version}_$arch.deb"
done

(cd "$out" && sha256sum -- * >SHA256SUMS)
cat "$out/SHA256SUMS"
