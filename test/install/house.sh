#!/bin/bash
# house.sh: the files of docs/install.md for a house's network, taken by systemd-networkd and
# dnsmasq in namespaces of its own, and a device that asks for its address. TestHouse runs it:
# unshare --net --mount test/install/house.sh WORK, as root.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$1
links="eth0 eth1" pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait' EXIT

file() { # the block of the page that begins with a comment of this path
	sed -n "\\,^# $1\$,,/^\`\`\`/p" docs/install.md | sed '$d' | tee "$work/file"
	[ -s "$work/file" ] || { echo "docs/install.md has no $1" >&2 && exit 1; }
}

# Nothing of this host's is seen or written. networkd waits for udev unless /sys is read-only.
for dir in /etc/systemd/network /run/systemd; do mount -t tmpfs house "$dir"; done
mount -t sysfs -o ro house /sys
mkdir -p /run/systemd/netif/{links,leases,lldp}
chown -R systemd-network:systemd-network /run/systemd/netif
cp packaging/networkd/60-br-* packaging/networkd/60-card-* /etc/systemd/network/
mkdir /etc/systemd/network/60-br-lan.network.d
file /etc/systemd/network/60-br-lan.network.d/host.conf >/etc/systemd/network/60-br-lan.network.d/host.conf
file /etc/dnsmasq.d/thurward.conf >"$work/dnsmasq.conf"

ip link set lo up
unshare --net sleep 300 & device=$!
pids+=($device)
for i in $(seq 100); do # until it has its own
	[ "$(readlink /proc/$device/ns/net)" != "$(readlink /proc/self/ns/net)" ] && break
	sleep 0.1
done
ip link add eth1 type veth peer name dev0
ip link set dev0 netns $device
ip link add eth0 type veth peer name router0
ip link set router0 up
device() { nsenter --target "$device" --net "$@"; }
device ip link set dev0 up

SYSTEMD_LOG_LEVEL=warning /lib/systemd/systemd-networkd >"$work/networkd" 2>&1 & pids+=($!)
for i in $(seq 200); do
	ready=yes
	ip -4 -o addr show dev br-lan 2>/dev/null | grep -q inet || ready=
	for link in $links; do [ -e "/sys/class/net/$link/master" ] || ready=; done
	[ "$ready" ] && break
	sleep 0.1
done
for link in $links; do echo "$link is in $(basename "$(readlink "/sys/class/net/$link/master")")"; done
echo "the computer has $(ip -4 -o addr show dev br-lan | awk '{print $4}'), the WAN side $(ip -4 -o addr show dev br-wan | wc -l) addresses"
ip route | awk '$1 == "default" {print "its router is " $3}'

dnsmasq --test -C "$work/dnsmasq.conf" 2>&1
dnsmasq --keep-in-foreground -C "$work/dnsmasq.conf" --dhcp-leasefile="$work/leases" --pid-file="$work/dnsmasq.pid" >"$work/dnsmasq" 2>&1 & pids+=($!)
printf '#!/bin/sh\necho "a device has $ip/$mask, router $router, name server $dns"\n' >"$work/lease"
chmod +x "$work/lease"
device timeout 60 busybox udhcpc -i dev0 -f -n -q -t 20 -T 1 -s "$work/lease" 2>"$work/udhcpc" || { cat "$work"/{networkd,dnsmasq,udhcpc} && exit 1; }
