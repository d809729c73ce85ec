#!/bin/bash
# container.sh LOWER WORK: boots systemd on a copy of the system in LOWER, which stays as it
# is: what is written goes to WORK. It has a network, processes and users' processes of its
# own. Ends with the system. (systemd-nspawn wants a machine that was itself booted by
# systemd; this does not.)
set -euo pipefail
lower=$1 work=$2

if [ "${3:-}" != inside ]; then
	mkdir -p "$work/root"
	# A control group of its own, so that the system sees only its own.
	for g in /sys/fs/cgroup/unified /sys/fs/cgroup; do
		if [ -e "$g/cgroup.procs" ] && mkdir -p "$g/thurward-$$" 2>/dev/null && echo $$ >"$g/thurward-$$/cgroup.procs" 2>/dev/null; then
			break
		fi
	done
	exec unshare --mount --pid --uts --ipc --net --cgroup --fork "$0" "$lower" "$work" inside
fi

mount --make-rprivate /
mount -t tmpfs tmpfs "$work/root" # an upper folder must not be on an overlay itself
mkdir -p "$work/root"/{upper,work,tree}
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$work/root/upper,workdir=$work/root/work" "$work/root/tree"
cd "$work/root/tree"
mount -t proc proc proc
# Read-only: systemd then does not wait for udev, which this has not.
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
# Nodes of its own: systemd and udev's rules change owners and modes.
while read -r name minor; do
	mknod -m 0666 dev/$name c 1 $minor
done <<EOF
null 3
zero 5
full 7
random 8
urandom 9
EOF
mknod -m 0666 dev/tty c 5 0
mknod -m 0600 dev/console c 1 3
mkdir dev/pts dev/shm dev/net
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
mknod -m 0666 dev/net/tun c 10 200
[ ! -e /dev/kvm ] || mknod -m 0660 dev/kvm c 10 232
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p mnt/host
mount --bind "$work/share" mnt/host
# Nothing of the host's own services, and no state of its own.
rm -f etc/systemd/system/*.target.wants/* etc/machine-id
: >etc/machine-id
mkdir -p var/old-root
pivot_root . var/old-root
umount -l /var/old-root
hostname thurward-install
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target
