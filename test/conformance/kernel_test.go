package conformance

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/thurward/thurward/internal/guest/kernel/vm"
	"github.com/thurward/thurward/internal/shared/abi"
)

// TestKernelLimits: docs/kernel.md says what the kernel's limits are.
func TestKernelLimits(t *testing.T) {
	page, err := os.ReadFile("../../docs/kernel.md")
	if err != nil {
		t.Fatal(err)
	}
	threads, err := strconv.Atoi(consts(t, "../../cmd/kernel/thread.go")["maxThreads"])
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]int{
		"threads":        threads - 1, // number 0 is none
		"memory areas":   vm.MaxAreas,
		"virtio devices": abi.MaxDevices,
	} {
		m := regexp.MustCompile(`(\d+) ` + what).FindSubmatch(page)
		if m == nil || string(m[1]) != strconv.Itoa(want) {
			t.Errorf("docs/kernel.md: %q, want %d %s", m, want, what)
		}
	}
}
