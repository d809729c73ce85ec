#!/bin/sh
# What examples/sandbox/sandboxes.sh does, with a network namespace, nftables and dnsmasq for
# each sandbox: dnsmasq resolves the policy's names only and puts their addresses into a
# set, and nftables lets pass what goes there, to port 443. It knows no server names,
# and all sandboxes' packets are parsed by the host's kernel. For bench/density.
#
#	nftables.sh up N | down
set -eu
: "${PREFIX:=nft}" "${STATE:=/run/thurward/nftables}" "${POLICY:=examples/sandbox/rules.yaml}"

up() {
	mkdir -p "$STATE"
	# The names of the policy's rules; "*.x" is all below x, which is all that dnsmasq has.
	names=$(grep -o 'destination_fqdn: \[*[^]]*' "$POLICY" | sed 's/destination_fqdn: \[*//; s/[",]/ /g; s/\*\.//g; s/ destination_port.*//')
	servers='' sets=''
	for n in $names; do servers="$servers --server=/$n/9.9.9.9" sets="$sets/$n"; done
	ip -batch - <<-END
		link add $PREFIX-up type bridge
		addr add 100.65.0.1/16 dev $PREFIX-up
		link set dev $PREFIX-up up
	END
	for i in $(seq "$1"); do
		sb=$PREFIX-$i fw=$PREFIX-$i-fw n=$((i + 1))
		ip -batch - <<-END
			netns add $sb
			netns add $fw
			link add dev eth0 netns $sb type veth peer name lan netns $fw
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
			link set dev lo up
			addr add 10.0.0.1/30 dev lan
			addr add 100.65.$((n / 250)).$((n % 250 + 1))/16 dev up
			link set dev lan up
			link set dev up up
			route add default via 100.65.0.1
		END
		ip netns exec "$fw" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; exec nft -f -' <<-END
			table ip sandbox {
				set allowed { type ipv4_addr; timeout 10m; size 1024; }
				chain input { type filter hook input priority filter; policy drop; ct state established accept; iifname lan udp dport 53 accept; iifname lan tcp dport 53 accept; }
				chain forward { type filter hook forward priority filter; policy drop; ct state established accept; iifname lan oifname up tcp dport 443 ip daddr @allowed accept; }
				chain in { type nat hook prerouting priority dstnat; iifname lan udp dport 53 redirect; iifname lan tcp dport 53 redirect; }
				chain out { type nat hook postrouting priority srcnat; oifname up masquerade; }
			}
		END
		# shellcheck disable=SC2086
		ip netns exec "$fw" dnsmasq --conf-file=/dev/null --no-resolv --no-hosts --interface=lan --bind-interfaces --except-interface=lo \
			--cache-size=1024 $servers --nftset="$sets/4#ip#sandbox#allowed" --pid-file="$STATE/$sb.pid" --log-facility=/dev/null
	done
}

down() {
	for p in "$STATE/$PREFIX"-*.pid; do
		[ -e "$p" ] || continue
		kill "$(cat "$p")" 2>/dev/null || true
		rm -f "$p"
	done
	for ns in /run/netns/"$PREFIX"-*; do
		[ -e "$ns" ] || continue
		ip link del "$(basename "$ns")-up" 2>/dev/null || true
		ip netns del "$(basename "$ns")"
	done
	ip link del "$PREFIX-up" 2>/dev/null || true
}

case ${1:-} in
up) up "$2" ;;
down) down ;;
*) exit 2 ;;
esac
