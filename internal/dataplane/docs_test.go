package dataplane

import (
	"os"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/telemetry"
)

// TestReasonsAreDocumented: the table of reasons has them all.
func TestReasonsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/packet-path.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "## Reasons")
	if !ok {
		t.Fatal("no section of reasons")
	}
	for r := telemetry.Reason(1); r < telemetry.NumReasons; r++ {
		if !strings.Contains(table, "`"+r.String()+"`") {
			t.Errorf("%v is not documented", r)
		}
	}
}
