package doctor

import (
	"strings"

	"github.com/thurward/thurward/internal/host/image"
)

// hypervisors finds those that are installed. One is needed.
func (h *Host) hypervisors() (all []Finding) {
	any := false
	for _, name := range []string{"qemu", "firecracker", "cloud-hypervisor"} {
		version, err := h.Hypervisor(name)
		if err == nil {
			any = true
			all = append(all, finding(name, OK, "", "%s", version))
			continue
		}
		s, remedy := Info, ""
		if name == "qemu" {
			remedy = "apt-get install qemu-system-x86"
		}
		if !strings.Contains(err.Error(), "not installed") { // it is there and cannot be used
			s, remedy = Warning, "install another version"
		}
		all = append(all, finding(name, s, remedy, "%v", err))
	}
	if !any {
		all[0].Status = Error
	}
	if path, err := h.LookPath("jailer"); err == nil {
		all = append(all, finding("jailer", OK, "", "Firecracker's jailer is %s", path))
	}
	return all
}

// signatures finds a tool that verifies signatures beside thurward itself.
func (h *Host) signatures() Finding {
	if path, err := h.LookPath("cosign"); err == nil {
		return finding("cosign", OK, "", "%s", path)
	}
	return finding("cosign", Info, "install cosign to verify releases without thurward", "cosign is not installed")
}

// parts says whether thurward build finds what it links.
func (h *Host) parts() Finding {
	const name = "parts"
	var missing []string
	for _, p := range []string{"kernel.elf", image.Plain, image.DoT} {
		if h.Parts(p) == "" {
			missing = append(missing, p)
		}
	}
	switch {
	case len(missing) == 1 && missing[0] == image.DoT: // make builds it when rules.yaml of the sources needs it
		return finding(name, Info, "make build/"+image.DoT+" in the sources, for policies with upstreams over TLS",
			"thurward build has a kernel and a program, but no %s", image.DoT)
	case len(missing) > 0:
		return finding(name, Warning, "install the package, or run make build in the sources", "thurward build would not find %s", strings.Join(missing, ", "))
	}
	return finding(name, OK, "", "thurward build has a kernel and both programs")
}
