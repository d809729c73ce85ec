package deps

import (
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// inlined are the functions that the fast path calls for every packet, or every
// frame of a queue, and that cost little only because the compiler inlines them.
var inlined = map[string][]string{
	"internal/guest/framebuf": {"(*Pool).Bytes", "(*Pool).Head", "(*Queue).Len", "(*Queue).First", "Links.Next", "Links.Tag", "Links.Push", "Links.Pop"},
	"internal/guest/neigh":    {"(*Cache).Find"},
	"internal/guest/conntrack": {"(*Batch).Len", "(*Batch).Key", "(*Batch).Next", "(*Batch).Add", "(*Table).Hint", "(*Table).IsFast", "(*Table).Dir",
		"(*Table).Shared", "same"},
	"internal/shared/packet": {"MAC", "SetID", "PutAddrs", "PassTTL", "PutPorts", "UpdateTCP", "UpdateUDP"},
}

// TestInlining: they are still small enough for it. The compiler says so with -m;
// what it has compiled before it says from its cache.
func TestInlining(t *testing.T) {
	for pkg, names := range inlined {
		cmd := exec.Command("go", "build", "-gcflags=-m", "./"+pkg)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		can := map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^\S+: can inline (\S+)`).FindAllStringSubmatch(string(out), -1) {
			can[m[1]] = true
		}
		for _, f := range names {
			if !can[f] {
				t.Errorf("%s: %s cannot be inlined: go build -gcflags=-m=2 ./%s says why", pkg, f, pkg)
			}
		}
	}
}
