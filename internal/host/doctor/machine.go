package doctor

import (
	"path/filepath"
	"strconv"
	"strings"
)

func (h *Host) device(name string) string { return filepath.Join(h.Root, "/dev", name) }

func (h *Host) kvm() Finding {
	const name = "kvm"
	switch err := h.Open(h.device("kvm")); {
	case err == nil:
		return finding(name, OK, "", "/dev/kvm can be used")
	case isMissing(err):
		return finding(name, Warning, "turn virtualization on in the machine's firmware, or nested virtualization in its hypervisor, then: modprobe kvm_intel, or kvm_amd",
			"there is no /dev/kvm: QEMU emulates every instruction (TCG), and Firecracker and cloud-hypervisor do not run")
	default:
		return finding(name, Warning, "usermod -aG kvm $USER, then log in again; the service's user is a member already",
			"%v: QEMU emulates every instruction (TCG)", err)
	}
}

// accelerator tells a KVM on hardware from one that emulates ring 0: by booting an image
// where there is one, else by the processor's flags.
func (h *Host) accelerator() Finding {
	const name = "accelerator"
	if h.Probe != nil {
		kvm, why, err := h.Probe()
		switch {
		case err != nil:
			return finding(name, Error, "thurward run --image IMAGE shows more", "the image does not boot: %v", err)
		case kvm && strings.Contains(why, "in software"):
			return finding(name, Warning, "use a host with hardware virtualization for speed", "KVM: %s", why)
		case kvm:
			return finding(name, OK, "", "KVM: %s", why)
		}
		return finding(name, Warning, "see the check kvm", "TCG: %s", why)
	}
	if h.Open(h.device("kvm")) != nil {
		return finding(name, Info, "", "TCG, QEMU's emulator")
	}
	flags := ""
	for line := range strings.Lines(h.read("/proc/cpuinfo")) {
		if k, v, _ := strings.Cut(line, ":"); strings.TrimSpace(k) == "flags" {
			flags = " " + strings.TrimSpace(v) + " "
			break
		}
	}
	for _, f := range []string{"vmx", "svm"} {
		if strings.Contains(flags, " "+f+" ") {
			return finding(name, OK, "", "KVM by the processor's %s", f)
		}
	}
	return finding(name, Info, "thurward doctor --image IMAGE boots it once and measures",
		"KVM, on a processor that shows neither vmx nor svm: it may be emulated in part")
}

func (h *Host) tun() Finding {
	const name = "tun"
	switch err := h.Open(h.device("net/tun")); {
	case err == nil:
		return finding(name, OK, "", "/dev/net/tun can be used: tap: and bridge: networks work")
	case isMissing(err):
		return finding(name, Warning, "modprobe tun", "there is no /dev/net/tun: neither tap: nor bridge: networks work")
	default:
		return finding(name, Warning, "run as root or as the service's user; or chmod 0666 /dev/net/tun, its usual mode", "%v: neither tap: nor bridge: networks work", err)
	}
}

func (h *Host) vhostNet() Finding {
	if h.exists("/dev/vhost-net") {
		return finding("vhost-net", OK, "", "/dev/vhost-net is there")
	}
	return finding("vhost-net", Info, "modprobe vhost_net, where a domain of libvirt's is to use it", "no /dev/vhost-net; thurward run does not need it")
}

func (h *Host) vhostVsock() Finding {
	if h.exists("/dev/vhost-vsock") {
		return finding("vhost-vsock", OK, "", "/dev/vhost-vsock is there: --vsock kernel:CID works")
	}
	return finding("vhost-vsock", Info, "modprobe vhost_vsock, for --vsock kernel:CID", "no /dev/vhost-vsock; --vsock with a path, the default, does not need it")
}

// Memory in MB: that of the machine by default, and what hypervisor and launcher need
// beside it.
const (
	machineMB = 64
	besideMB  = 192
)

func (h *Host) memory() Finding {
	const name = "memory"
	for line := range strings.Lines(h.read("/proc/meminfo")) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "MemAvailable:" {
			continue
		}
		kb, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			break
		}
		mb, want := kb>>10, uint64(machineMB+besideMB)
		if mb < want {
			return finding(name, Warning, "give the host more, or stop something", "%d MB available; a firewall of %d MB and its hypervisor want %d", mb, machineMB, want)
		}
		return finding(name, OK, "", "%d MB available; a firewall of %d MB and its hypervisor want %d", mb, machineMB, want)
	}
	return finding(name, Info, "", "how much memory is available is not known")
}
