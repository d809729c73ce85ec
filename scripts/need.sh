#!/bin/sh
# need.sh [--check] go|run|test|differential|importing|evasions|install|cycles: makes sure that the programs
# which "make run", "make test", "make differential" and "make evasions" use are there. Installs what is
# missing where it may (Debian, Ubuntu, as root or with sudo that asks for no
# password); otherwise says what to type. With --check it installs nothing, and
# fails only where it could not.
set -eu

check=
if [ "${1:-}" = --check ]; then
	check=yes
	shift
fi

# Go fetches the version that go.mod names by itself, from 1.21 on. Debian 12's is older, and
# says of go.mod that its version is invalid.
old_go() {
	case $(${GO:-go} version 2>/dev/null) in
	"") echo "there is no Go on the PATH" ;;
	"go version go1."[0-9] | "go version go1."[0-9][.\ ]* | "go version go1.1"[0-9][.\ ]* | "go version go1.20"*) echo "$(${GO:-go} version) is too old" ;;
	esac
}
if go=$(old_go) && [ -n "$go" ]; then
	echo "need.sh: $go: Go 1.21 or newer is needed (https://go.dev/dl/); it then fetches the version that go.mod names" >&2
	exit 1
fi
[ "${1:-run}" != go ] || exit 0

missing=
need() { # program package
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

case "${1:-run}" in
differential | importing) ;;
cycles) need valgrind valgrind ;; # counts instructions where the processor does not
*) need qemu-system-x86_64 qemu-system-x86 ;;
esac
if [ "${1:-run}" != run ] && [ "${1:-run}" != cycles ]; then
	# The comparison with the Linux kernel.
	need ip iproute2
	need nft nftables
fi
if [ "${1:-run}" = importing ] || [ "${1:-run}" = test ]; then
	# The comparison of imported rule sets.
	need iptables-nft-restore iptables
fi
if [ "${1:-run}" = evasions ]; then
	# What people use instead. Debian starts Squid as a service: systemctl disable
	# --now squid ends that.
	need dnsmasq dnsmasq-base
	need conntrack conntrack
	need squid squid-openssl
	need openssl openssl
fi
if [ "${1:-run}" = test ]; then
	# The test with real hosts; it skips where namespaces are not allowed.
	need curl curl
	need ping iputils-ping
	need promtool prometheus
	need amtool prometheus-alertmanager
	# The web page is looked at with it.
	need chromium chromium
	need python3 python3
	# Completions are loaded by the shells that they are for.
	need zsh zsh
	need fish fish
	[ -f /usr/share/bash-completion/bash_completion ] || missing="$missing bash-completion"
	need dig bind9-dnsutils
	need dnsmasq dnsmasq-base
	need dnsperf dnsperf
	need tcpdump tcpdump
	need openssl openssl
	need unbound unbound
	need busybox busybox
	need virt-xml-validate libvirt-clients
	need xmllint libxml2-utils
	# It counts instructions: TestInstructions.
	need valgrind valgrind
fi
if [ "${1:-run}" = install ]; then
	need curl curl
	need python3 python3
	need lintian lintian
	need openssl openssl
fi
[ -z "$missing" ] && exit 0

say() { echo "need.sh: $*" >&2; }

if ! command -v apt-get >/dev/null 2>&1; then
	say "missing:$missing (the names are Debian's); install them with this system's package manager"
	exit 1
fi
run=
if [ "$(id -u)" != 0 ]; then
	if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
		run="sudo -n"
	else
		say "missing:$missing"
		if command -v sudo >/dev/null 2>&1; then
			say "type: sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing"
		else
			say "type as root: apt-get update && apt-get install -y --no-install-recommends$missing"
		fi
		exit 1
	fi
fi
[ -z "$check" ] || exit 0
say "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
if ! out=$({ $run apt-get update -qq && $run apt-get install -y -qq --no-install-recommends $missing; } 2>&1); then
	printf '%s\n' "$out" >&2
	say "these packages could not be installed:$missing"
	exit 1
fi
