#!/bin/sh
# A firewall of its own in front of each of N sandboxes, which cannot reach it, pass by
# it, or see each other. docs/sandbox.md explains it.
#
#	sandboxes.sh up N          start sandboxes 1 to N, each with its firewall
#	sandboxes.sh enter I CMD   run a command in sandbox I
#	sandboxes.sh list          the firewalls, and whether they are ready
#	sandboxes.sh down          end all, and remove their networks
#
# For each sandbox I there are two network name spaces:
#
#	sbx-I      eth0 10.0.0.2 ── veth ── bridge lan ── TAP ── firewall ── TAP ── bridge wan
#	           (the sandbox)    └────────── sbx-I-fw: 192.0.2.1, masquerade, up ──────────┘
#
# and all "up" are ports of one bridge, sbx-up, which are isolated from each other. The
# bridge lan has no address: nothing of the host is in reach of the sandbox.
#
# Variables, with what they are without:
#	THURWARD=thurward  IMAGE=sandbox.img  VMM=firecracker  MEMORY=40M  PREFIX=sbx
#	RUN_FLAGS=         more flags of thurward run, as "--accel kvm" for VMM=qemu
#	SNAPSHOT=          with Firecracker: a folder of a saved machine from which all start,
#	                   made if it is not there; docs/run.md says what they then share
#	SNAPSHOT_USER=65534:65534  whom all these hypervisors become, so that they share its memory
#	VSOCK=/run/thurward/vsock  where one receiver for all listens (VSOCK_9000)
#	STATE=/run/thurward/sandboxes  logs and process numbers
#	UPLINK=yes         "no": do not masquerade and forward for the bridge on this host
set -eu

: "${THURWARD:=thurward}" "${IMAGE:=sandbox.img}" "${VMM:=firecracker}" "${MEMORY:=40M}" "${PREFIX:=sbx}"
: "${SNAPSHOT:=}" "${SNAPSHOT_USER:=65534:65534}"
FROM=
: "${RUN_FLAGS:=}" "${VSOCK:=/run/thurward/vsock}" "${STATE:=/run/thurward/sandboxes}" "${UPLINK:=yes}"

die() { echo "sandboxes.sh: $*" >&2; exit 1; }

# outside makes the bridge to which all firewalls lead.
outside() {
	ip link show "$PREFIX-up" >/dev/null 2>&1 && return
	ip -batch - <<-END
		link add $PREFIX-up type bridge
		addr add 100.64.0.1/16 dev $PREFIX-up
		link set dev $PREFIX-up up
	END
	[ "$UPLINK" = yes ] || return 0
	echo 1 >/proc/sys/net/ipv4/ip_forward
	nft -f - <<-END
		table ip thurward-$PREFIX {
			chain out { type nat hook postrouting priority srcnat; ip saddr 100.64.0.0/16 oifname != "$PREFIX-up" masquerade; }
		}
	END
}

# network makes the networks of sandbox $1.
network() {
	sb=$PREFIX-$1 fw=$PREFIX-$1-fw n=$(($1 + 1))
	ip -batch - <<-END
		netns add $sb
		netns add $fw
		link add dev eth0 netns $sb type veth peer name sandbox netns $fw
		link add dev $sb-up type veth peer name up netns $fw
		link set dev $sb-up master $PREFIX-up
		link set dev $sb-up type bridge_slave isolated on
		link set dev $sb-up up
	END
	ip -n "$sb" -batch - <<-END
		link set dev lo up
		addr add 10.0.0.2/30 dev eth0
		link set dev eth0 up
		route add default via 10.0.0.1
	END
	ip -n "$fw" -batch - <<-END
		link add lan type bridge
		link add wan type bridge
		link set dev sandbox master lan
		addr add 192.0.2.1/30 dev wan
		addr add 100.64.$((n / 250)).$((n % 250 + 1))/16 dev up
		link set dev lan up
		link set dev wan up
		link set dev sandbox up
		link set dev up up
		route add default via 100.64.0.1
	END
	# Only what comes from the firewall is forwarded, and nothing is for this name space.
	# What passes over a bridge is not for nftables: some hosts have it otherwise.
	ip netns exec "$fw" sh -c 'for f in all lan sandbox wan up; do echo 1 >/proc/sys/net/ipv6/conf/$f/disable_ipv6; done
		for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e "$f" ] || echo 0 >"$f"; done
		echo 1 >/proc/sys/net/ipv4/ip_forward; exec nft -f -' <<-END
		table ip sandbox {
			chain input { type filter hook input priority filter; policy drop; ct state established accept; }
			chain forward { type filter hook forward priority filter; policy drop; iifname wan oifname up accept; ct state established accept; }
			chain out { type nat hook postrouting priority srcnat; oifname up masquerade; }
		}
	END
	mkdir -p "/etc/netns/$sb"
	echo nameserver 10.0.0.1 >"/etc/netns/$sb/resolv.conf"
}

# saved makes the machine from which all start, in the networks of sandbox $1, unless it is there.
saved() {
	[ -n "$SNAPSHOT" ] || return 0
	[ -e "$SNAPSHOT" ] ||
		# shellcheck disable=SC2086
		ip netns exec "$PREFIX-$1-fw" "$THURWARD" run --image "$IMAGE" --vmm "$VMM" --memory "$MEMORY" --lan bridge:lan --wan bridge:wan \
			--vsock "$VSOCK" --reader none --page none --user "$SNAPSHOT_USER" $RUN_FLAGS --snapshot "$SNAPSHOT" \
			</dev/null >"$STATE/snapshot.out" 2>&1 || die "$(cat "$STATE/snapshot.out")"
	FROM="--user $SNAPSHOT_USER --from-snapshot $SNAPSHOT"
}

# firewall starts the firewall of sandbox $1. It is started again by thurward run.
firewall() {
	# shellcheck disable=SC2086
	setsid ip netns exec "$PREFIX-$1-fw" "$THURWARD" run --image "$IMAGE" --vmm "$VMM" --memory "$MEMORY" \
		--lan bridge:lan --wan bridge:wan --vsock "$VSOCK" --reader none --page none --name "$PREFIX-$1" $FROM $RUN_FLAGS \
		</dev/null >"$STATE/$PREFIX-$1.log" 2>&1 &
	echo $! >"$STATE/$PREFIX-$1.pid"
}

up() {
	[ "$1" -ge 1 ] && [ "$1" -le 60000 ] || die "want 1 to 60000 sandboxes"
	mkdir -p "$STATE"
	outside
	for i in $(seq "$1"); do
		[ ! -e "/run/netns/$PREFIX-$i" ] || die "$PREFIX-$i is there already (sandboxes.sh down ends all)"
		network "$i"
		saved "$i"
		firewall "$i"
	done
}

list() {
	for p in "$STATE/$PREFIX"-*.pid; do
		[ -e "$p" ] || continue
		log=${p%.pid}.log
		said=$(grep -E 'thurward: (ready|refusing|crash)|^thurward: [a-z]+: ' "$log" | tail -n 1 | cut -c 1-100)
		kill -0 "$(cat "$p")" 2>/dev/null || said="ended: $(tail -n 1 "$log")"
		echo "$(basename "${p%.pid}") ${said:-is starting}"
	done
}

down() {
	for p in "$STATE/$PREFIX"-*.pid; do [ ! -e "$p" ] || kill "$(cat "$p")" 2>/dev/null || true; done
	for p in "$STATE/$PREFIX"-*.pid; do
		[ -e "$p" ] || continue
		n=0
		while kill -0 "$(cat "$p")" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
		rm -f "$p" "${p%.pid}.log"
	done
	for ns in /run/netns/"$PREFIX"-*; do
		[ -e "$ns" ] || continue
		ns=$(basename "$ns")
		ip link del "$ns-up" 2>/dev/null || true # what is left to the kernel goes later
		ip netns del "$ns"
		rm -rf "/etc/netns/${ns:?}"
	done
	nft delete table ip "thurward-$PREFIX" 2>/dev/null || true
	ip link del "$PREFIX-up" 2>/dev/null || true
}

case ${1:-} in
up) [ $# = 2 ] || die "up N"; up "$2" ;;
enter) [ $# -ge 3 ] || die "enter I CMD"; i=$2; shift 2; exec ip netns exec "$PREFIX-$i" "$@" ;;
list) list ;;
down) down ;;
*) sed -n 's/^#\t\(sandboxes.sh .*\)/\1/p' "$0"; exit 2 ;;
esac
