package deps

import (
	_ "embed"
	"strings"
)

//go:embed kernel.txt
var kernel string

//go:embed firewall.txt
var firewall string

//go:embed firewall-dot.txt
var firewallDoT string

// Kernel lists the packages that are linked into the kernel, which somebody has looked at.
func Kernel() []string { return strings.Fields(kernel) }

// Firewall lists those of the firewall's program, with or without DNS over TLS.
func Firewall(dot bool) []string {
	if dot {
		return strings.Fields(firewallDoT)
	}
	return strings.Fields(firewall)
}
