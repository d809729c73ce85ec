package ingest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/thurward/thurward/internal/host/ecs"
)

// TestGolden: all lines that the firewall writes can be read.
func TestGolden(t *testing.T) {
	files, _ := filepath.Glob("../../guest/export/testdata/*.golden")
	if len(files) < 4 {
		t.Fatalf("only %v", files)
	}
	kinds := map[Kind]int{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fw := NewFollower(f)
		for {
			_, it, err := fw.Next()
			if err != nil {
				break
			}
			kinds[it.Kind]++
			if it.Kind == Malformed || it.Kind == Unknown {
				t.Errorf("%s: %v: %s", name, it.Err, it.Raw)
			}
			if it.Kind == EventKind && (it.Event.Time().IsZero() || it.Event.Str(ecs.EventAction) == "" || len((ecs.Style{}).Verdict(it.Event)) < 10) {
				t.Errorf("%s: %s", name, it.Raw)
			}
			if it.Kind == HelloKind && (it.Hello.Booted.IsZero() || it.Hello.Name() == "unknown") {
				t.Errorf("%s: %+v", name, it.Hello)
			}
		}
	}
	for _, k := range []Kind{EventKind, SampleKind, HelpKind, TypeKind, SpanKind, HelloKind} {
		if kinds[k] == 0 {
			t.Errorf("no line of kind %v", k)
		}
	}
}
