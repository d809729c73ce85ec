#!/bin/bash
# install.sh PACKAGE [OTHER...]: what a person does with the Debian package, on a Debian 12 with systemd
# in namespaces of this machine: install, init, build, start the service, traffic, another
# policy, one that does not work, remove. Of the others, which are for other processors, only
# what lintian says is checked.
#
#	TREE=DIR    the system: a folder made by debootstrap (--include=systemd,systemd-sysv,
#	            dbus,iproute2,procps,curl,python3). Without it this machine's own, if
#	            it is a Debian 12, which is not a fresh one, as a copy: nothing of it changes
#	FRESH=1     makes TREE by debootstrap (minutes, the network)
#
# Needs root and a kernel with overlayfs. What cannot be done here is skipped, and said.
set -euo pipefail
cd "$(dirname "$0")/../.."
package=$(realpath "$1")
shift

passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
bad() { failed=$((failed + 1)); echo "FAILED: $*"; }
skip() { skipped=$((skipped + 1)); echo "skipped: $*"; }
finish() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" = 0 ]
	exit
}
check() { # what command...
	local what=$1
	shift
	if "$@" >"$work/out" 2>&1; then ok "$what"; else
		bad "$what: $*"
		tail -n 15 "$work/out" | sed 's/^/    /'
		if [ -n "$journal" ]; then inside journalctl -q --no-pager -o cat -u "$journal" -n 12 2>/dev/null | cut -c1-200 | sed 's/^/    | /'; fi
	fi
}

[ "$(id -u)" = 0 ] || { skip "all: only root may make namespaces with devices"; finish; }
work=$(mktemp -d /tmp/thurward-install.XXXXXX)
mkdir -p "$work/share"
system= journal=
end() {
	if [ -n "$system" ]; then
		kill -KILL "$system" 2>/dev/null || true # its namespace ends with it
		wait "$booter" 2>/dev/null || true
	fi
	for g in /sys/fs/cgroup/unified /sys/fs/cgroup; do
		find "$g/thurward-${booter:-none}" -depth -type d -exec rmdir {} \; 2>/dev/null || true
	done
	rm -rf "$work"
}
trap end EXIT

if [ "${FRESH:-}" = 1 ]; then
	TREE=${TREE:-$work/tree}
	debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2,procps,curl,python3 bookworm "$TREE" >"$work/out" || { tail "$work/out"; exit 1; }
fi
if [ -n "${TREE:-}" ]; then
	lower=$TREE
elif grep -q '^VERSION_CODENAME=bookworm' /etc/os-release && [ -x /lib/systemd/systemd ]; then
	lower=/
	skip "a fresh system: this machine's own Debian 12, as a copy, stands in (FRESH=1 makes one)"
else
	skip "all: this machine is no Debian 12 with systemd, and TREE names none"
	finish
fi

if command -v lintian >/dev/null; then
	for p in "$package" "$@"; do
		lintian --allow-root --tag-display-limit 0 "$p" 2>&1 | grep -v '^N: ' >"$work/out" || true
		if [ -s "$work/out" ]; then bad "lintian: $p: $(cat "$work/out")"; else ok "lintian has nothing to say but what is listed: $p"; fi
	done
else
	skip "lintian: it is not installed"
fi

cp "$package" "$work/share/thurward.deb"
setsid test/install/container.sh "$lower" "$work" >"$work/boot" 2>&1 &
booter=$!
for _ in $(seq 100); do
	system=$(pgrep -P "$booter" 2>/dev/null | head -n1 || true)
	[ -n "$system" ] && [ "$(cat "/proc/$system/comm" 2>/dev/null)" = systemd ] && break
	kill -0 "$booter" 2>/dev/null || break
	sleep 0.1
done
if [ -z "$system" ] || ! kill -0 "$booter" 2>/dev/null; then
	skip "all: systemd cannot be booted in namespaces here: $(tail -n1 "$work/boot")"
	system=
	finish
fi
inside() { nsenter -t "$system" -m -p -u -i -n -C env -i -C /root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
# The same with this machine's network, for apt.
outside() { nsenter -t "$system" -m -p -u -i -C env -i -C /root PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
sh() { inside /bin/sh -euc "$1"; }
for _ in $(seq 300); do
	state=$(inside systemctl is-system-running 2>/dev/null || true)
	case $state in running | degraded) break ;; esac
	sleep 0.1
done
case ${state:-} in
running | degraded) ok "systemd runs ($state)" ;;
*) bad "systemd is ${state:-not there} after 30 s"; finish ;;
esac

if [ -n "${TREE:-}" ]; then
	# Its sources are those that it was made from, and this machine's way to them.
	cp -L /etc/resolv.conf "$work/share/resolv.conf"
	outside sh -c 'cat /mnt/host/resolv.conf >/etc/resolv.conf; apt-get update -qq' >"$work/out" 2>&1 || true
fi
check "apt-get install" outside apt-get install -y -qq --no-install-recommends /mnt/host/thurward.deb
check "the user, its group and the folders are there" sh 'id thurward | grep -q kvm; test -d /etc/thurward; test -d /var/lib/thurward'
[ ! -e /dev/kvm ] || sh 'chgrp kvm /dev/kvm' # as udev does where it runs
check "systemd-analyze verify has nothing to say" sh 'said=$(systemd-analyze verify /lib/systemd/system/thurward@.service 2>&1); echo "$said"; [ -z "$said" ]'
# What the package offers as drop-ins, each alone.
for drop in bridge jailer; do
	check "nor with $drop.conf.example" sh '
		mkdir -p /etc/systemd/system/thurward@.service.d
		cp /usr/share/thurward/systemd/'$drop'.conf.example /etc/systemd/system/thurward@.service.d/x.conf
		said=$(systemd-analyze verify thurward@edge.service 2>&1) || true; systemctl daemon-reload; systemctl cat thurward@edge | grep -q "^CapabilityBoundingSet=CAP"
		rm -r /etc/systemd/system/thurward@.service.d; systemctl daemon-reload; echo "$said"; [ -z "$said" ]'
done
exposure=$(inside systemd-analyze security thurward@edge.service 2>/dev/null | sed -n 's/.*exposure level.*: \([0-9.]*\) .*/\1/p')
if [ -n "$exposure" ] && awk "BEGIN{exit !($exposure < 3)}"; then ok "systemd-analyze security: $exposure"; else bad "systemd-analyze security: '$exposure', want below 3"; fi
check "doctor" sh 'thurward doctor; thurward doctor --json | grep -q "\"ok\": true"'

# The networks: bridges and TAP devices by the package's files, a host on either side.
check "systemd-networkd makes the package's bridges and TAP devices" sh '
	cp /usr/share/thurward/networkd/60-br-* /usr/share/thurward/networkd/60-thw-* /etc/systemd/network/
	systemctl restart systemd-networkd
	for i in $(seq 100); do
		[ -e /sys/class/net/br-lan/brif/thw-lan ] && [ -e /sys/class/net/br-wan/brif/thw-wan ] && exit 0
		sleep 0.1
	done; networkctl; exit 1'
check "two hosts" sh '
	ip link set lo up
	host() { # side address gateway
		ip netns add $1
		ip link add p-$1 type veth peer name eth0 netns $1
		ip link set p-$1 master br-$1 up
		ip -n $1 link set lo up
		ip -n $1 link set eth0 up
		ip -n $1 addr add $2 dev eth0
		[ -z "$3" ] || ip -n $1 route add default via $3
	}
	host lan 10.0.0.2/24 10.0.0.1
	host wan 203.0.113.1/24 ""
	ip -n wan addr add 198.51.100.80/32 dev lo
	mkdir -p /srv/web && echo served >/srv/web/page
	systemd-run -q --unit=web -p NetworkNamespacePath=/run/netns/wan -p WorkingDirectory=/srv/web python3 -m http.server --bind 198.51.100.80 80'

check "init" sh 'mkdir -p /etc/thurward/edge; cd /etc/thurward/edge; thurward init --lan-address 10.0.0.1/24 --wan-address 203.0.113.10/24 --gateway 203.0.113.1 --dns none
	cp /usr/share/thurward/run.env .; thurward check; thurward test'
check "completion in bash" inside bash -c 'dpkg -L thurward | grep -qx /usr/share/bash-completion/completions/thurward && . /usr/share/bash-completion/completions/thurward && complete -p thurward >/dev/null'
check "manual pages" sh 'zcat /usr/share/man/man1/thurward-run.1.gz | grep -q require-signature'
check "build, with provenance" sh '
	thurward build -f /etc/thurward/edge/rules.yaml -o /mnt/host/first.img --provenance; cp /mnt/host/first.img /root/'
openssl ecparam -name prime256v1 -genkey -noout -out "$work/key.pem" 2>/dev/null
openssl ec -in "$work/key.pem" -pubout -out "$work/share/key.pub" 2>/dev/null
check "inspect shows the policy that was built" sh '
	thurward inspect /root/first.img | grep "$(sha256sum /etc/thurward/edge/rules.yaml | cut -c1-64)"'
check "verify refuses an image that nobody has signed" sh 'said=$(thurward verify --key /mnt/host/key.pub /root/first.img 2>&1) && exit 1; echo "$said"; echo "$said" | grep sigstore.json'
check "signing, where the key is" test/install/sign.py "$work/key.pem" "$work/share/first.img"
check "verify" sh 'thurward verify --key /mnt/host/key.pub /mnt/host/first.img'
get() { sh "ip netns exec lan curl -s -m 3 http://198.51.100.80$1/page"; }
gets() { for _ in $(seq 20); do [ "$(get "$1" 2>/dev/null)" = served ] && return 0; sleep 0.2; done; return 1; }
getsnot() { ! get "$1" >/dev/null 2>&1; }

check "the first image is deployed" sh 'thurward deploy /root/first.img --name edge'
journal=thurward@edge
began=$(date +%s%3N)
check "systemctl start, which ends when the rules are live" sh 'systemctl enable --now thurward@edge'
echo "    ready after $(($(date +%s%3N) - began)) ms: $(inside systemctl show -p StatusText --value thurward@edge | cut -c1-100)"
check "it is active, as its own user, without capabilities" sh '
	systemctl is-active thurward@edge
	pid=$(systemctl show -p MainPID --value thurward@edge)
	[ "$(stat -c %U /proc/$pid)" = thurward ]
	grep -q "^CapEff:.*0000000000000000" /proc/$pid/status; grep -q "^CapBnd:.*0000000000000000" /proc/$pid/status'
check "a page is served through it" gets ""
check "nobody comes in" sh '! ip netns exec wan curl -s -m 2 http://10.0.0.2/'
check "events follows" sh 'runuser -u thurward -- timeout 20 thurward events --socket /run/thurward/edge/vsock_tail -n 1 & e=$!; sleep 1; ip netns exec lan curl -s -m 2 http://198.51.100.80:8443/ || true; wait $e'
check "the hypervisor is confined" sh '
	journalctl -q -o cat -u thurward@edge | grep "the hypervisor is confined" | tee /dev/stderr | { ! grep -q "cannot be had"; }'
echo "    $(inside journalctl -q -o cat -u thurward@edge | grep "running its current" | sed 's/.*, on/on/')"
check "the journal has its lines" sh 'journalctl -u thurward@edge | grep -q "thurward: ready"'

check "a changed policy is built and deployed" sh '
	sed -i "s/destination_port: \[80, 443\]/destination_port: 443/" /etc/thurward/edge/rules.yaml
	thurward build -f /etc/thurward/edge/rules.yaml -o /root/second.img
	thurward deploy /root/second.img --name edge --watch 2s'
check "what it forbids does not pass any more" getsnot ""
check "a deployment whose check fails goes back" sh '
	cp /etc/thurward/edge/rules.yaml /root/third.yaml
	sed -i "s/allow-time/allow-clock/" /root/third.yaml
	thurward build -f /root/third.yaml -o /root/third.img
	! thurward deploy /root/third.img --name edge --watch 2s --check false'
check "an image that is damaged is refused" sh '
	head -c 2000000 /root/first.img >/root/broken.img
	! thurward deploy /root/broken.img --name edge --watch 2s'
check "the second image is still the one that runs" sh '
	[ "$(readlink -f /var/lib/thurward/edge/current)" ] && cmp /var/lib/thurward/edge/current /root/second.img'
check "rollback, and the page passes again" sh 'thurward rollback --name edge --watch 2s'
check "a page is served through the first policy" gets ""

check "a launcher that is killed is started again" sh '
	before=$(systemctl show -p MainPID --value thurward@edge)
	[ "$before" -gt 1 ]
	kill -KILL $before
	for i in $(seq 300); do
		now=$(systemctl show -p MainPID --value thurward@edge)
		[ "$now" != 0 ] && [ "$now" != $before ] && systemctl is-active -q thurward@edge && exit 0
		sleep 0.1
	done; exit 1'
check "and passes packets" gets ""
# The watchdog's time cut short: a launcher that stands still is killed and started again,
# one that works is not.
check "systemd's watchdog hears the firewall" sh '
	mkdir -p /etc/systemd/system/thurward@edge.service.d
	printf "[Service]\nWatchdogSec=5\n" >/etc/systemd/system/thurward@edge.service.d/short.conf
	systemctl daemon-reload; systemctl restart thurward@edge
	pid=$(systemctl show -p MainPID --value thurward@edge); sleep 11
	[ "$pid" = "$(systemctl show -p MainPID --value thurward@edge)" ]; systemctl is-active -q thurward@edge'
check "and restarts a launcher that stands still" sh '
	pid=$(systemctl show -p MainPID --value thurward@edge); [ "$pid" -gt 1 ]; kill -STOP $pid
	for i in $(seq 250); do
		now=$(systemctl show -p MainPID --value thurward@edge)
		[ "$now" != 0 ] && [ "$now" != $pid ] && systemctl is-active -q thurward@edge && exit 0
		sleep 0.1
	done; exit 1'
check "which passes packets then" gets ""
# Only what is signed: S50 of docs/behaviour.md.
check "a service that demands a signature" sh '
	rm /etc/systemd/system/thurward@edge.service.d/short.conf; systemctl daemon-reload
	cp /mnt/host/key.pub /etc/thurward/edge/cosign.pub
	thurward deploy /mnt/host/first.img --name edge --watch 2s --require-signature /etc/thurward/edge/cosign.pub
	echo "THURWARD_OPTIONS=--page none --require-signature /etc/thurward/edge/cosign.pub" >/etc/thurward/edge/run.env
	systemctl restart thurward@edge'
check "passes packets of a signed image" gets ""
check "and takes none that nobody has signed" sh '
	said=$(thurward deploy /root/second.img --name edge --watch 2s 2>&1) && exit 1; echo "$said"; echo "$said" | grep "the image is not signed"
	journalctl --sync; journalctl -q -o cat -u thurward@edge | grep "the image is not changed: refusing to boot: .*the image is not signed"'
check "another signed policy" sh '
	sed "s/allow-time/allow-watch/" /etc/thurward/edge/rules.yaml >/mnt/host/rules.yaml
	thurward build -f /mnt/host/rules.yaml -o /mnt/host/fourth.img --previous /mnt/host/first.img'
check "is signed" test/install/sign.py "$work/key.pem" "$work/share/fourth.img"
check "and deployed, and what changes is shown from its provenance" sh '
	said=$(thurward deploy /mnt/host/fourth.img --name edge --watch 2s --require-signature /etc/thurward/edge/cosign.pub); echo "$said"
	echo "$said" | grep -q "who signed has seen those to the current image"; echo "$said" | grep -q allow-watch'
check "an image that was tampered with is refused at the next start, and the journal says why" sh '
	cd /var/lib/thurward/edge/images
	image=$(basename "$(readlink -f ../current)")
	sed -i "s/\"signature\": \"M/\"signature\": \"N/" "$image.sigstore.json"
	cmp -s "$image.sigstore.json" /mnt/host/fourth.img.sigstore.json && exit 1
	! systemctl restart thurward@edge
	journalctl --sync; journalctl -q -o cat -u thurward@edge | grep "refusing to boot: .*signature" | tail -n1'
check "rollback boots the one before" sh '
	for i in $(seq 50); do thurward rollback --name edge --watch 2s && break; sleep 0.1; done
	for i in $(seq 300); do systemctl is-active -q thurward@edge && break; sleep 0.1; done
	cmp /var/lib/thurward/edge/current /root/first.img'
check "which passes packets" gets ""
check "systemctl stop, in good order" sh 'systemctl stop thurward@edge; [ "$(systemctl show -p Result --value thurward@edge)" = success ]; ! pgrep qemu-system'
if fc=$(command -v firecracker) && [ -e /dev/kvm ]; then
	cp "$fc" "$work/share/firecracker"
	check "Firecracker by the same service, on TAP devices with one queue" sh '
		install -m 755 /mnt/host/firecracker /usr/local/bin/
		sed -i "s/MultiQueue=yes/MultiQueue=no/" /etc/systemd/network/60-thw-*.netdev
		ip link del thw-lan; ip link del thw-wan; systemctl restart systemd-networkd
		for i in $(seq 100); do [ -e /sys/class/net/br-wan/brif/thw-wan ] && break; sleep 0.1; done
		echo "THURWARD_OPTIONS=--page none --vmm firecracker" >/etc/thurward/edge/run.env
		systemctl start thurward@edge'
	check "and passes packets" gets ""
	check "and stops in good order" sh 'systemctl stop thurward@edge; [ "$(systemctl show -p Result --value thurward@edge)" = success ]; ! pgrep firecracker'
	if jailer=$(command -v jailer); then
		cp "$jailer" "$work/share/jailer"
		check "Firecracker in its jailer, with the package's drop-in" sh '
			install -m 755 /mnt/host/jailer /usr/local/bin/
			mkdir -p /etc/systemd/system/thurward@edge.service.d
			cp /usr/share/thurward/systemd/jailer.conf.example /etc/systemd/system/thurward@edge.service.d/jailer.conf
			systemctl daemon-reload
			echo "THURWARD_OPTIONS=--page none --vmm firecracker --jailer thurward" >/etc/thurward/edge/run.env
			systemctl start thurward@edge
			[ "$(stat -c %U /proc/$(pgrep -o firecracker))" = thurward ]'
		check "passes packets, too" gets ""
		check "and stops in good order, leaving no jail" sh 'systemctl stop thurward@edge; [ "$(systemctl show -p Result --value thurward@edge)" = success ]; ! pgrep firecracker; ! find /run /tmp /srv -path "*jail*firecracker*" 2>/dev/null | grep .
			rm -r /etc/systemd/system/thurward@edge.service.d; systemctl daemon-reload; echo "THURWARD_OPTIONS=--page none --vmm firecracker" >/etc/thurward/edge/run.env; chown -R thurward: /var/lib/thurward/edge'
	else
		skip "Firecracker in its jailer: there is no jailer on the PATH"
	fi
else
	skip "Firecracker: it is not on the PATH, or there is no /dev/kvm"
fi
check "apt-get remove, while it runs" outside sh -c 'systemctl start thurward@edge; apt-get remove -y -qq thurward; ! command -v thurward; ! pgrep qemu-system; test -d /var/lib/thurward/edge'
check "apt-get purge leaves the policy alone" outside sh -c 'apt-get purge -y -qq thurward; ! test -e /var/lib/thurward; test -e /etc/thurward/edge/rules.yaml'
finish
