package meant

import (
	"strings"
	"testing"
)

// TestWord: a word that is nearly one of those that there are is taken for it; another is
// taken for none.
func TestWord(t *testing.T) {
	words := []string{"check", "diff", "events", "explain", "top", "no_matching_allow_rule"}
	for typed, want := range map[string]string{
		"chekc": "check", "exlpain": "explain", "evnets": "events", "tpo": "top", "dfif": "diff", "pot": "", "to": "top", "top": "top",
		"foo": "", "": "", "x": "", "no_mtching_alow_rule": "no_matching_allow_rule", "matching": "",
		strings.Repeat("check", 1000): "",
	} {
		if got := Word(typed, words); got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
	if got := Word("check", nil); got != "" {
		t.Error(got)
	}
}
