package deps

import (
	"path"
	"regexp"
	"strings"
	"testing"
)

// dialect are turns of phrase that plain technical English does without, and what
// to write.
var dialect = map[string]string{
	`(come|comes|came) to nothing`:   "fail",
	`what (became|becomes) of`:       "the result of",
	`whoever`:                        "name the process, host or person",
	`acts of the`:                    "name what it does",
	`the short way`:                  "the fast path",
	`(is|are|was|were|be|been) told`: "gets, is notified, is reported",
	`(come|comes|came) to be`:        "succeed, exist",
	`in vain`:                        "without success",
	`for the sake of`:                "because, so that",
	`(is|are) said\b`:                "is reported, is listed",
	`policy segment`:                 "ruleset",
}

// TestWords: documents are free of them. Records of decisions stay as they were
// written.
func TestWords(t *testing.T) {
	walk(t, func(rel, text string) {
		if path.Ext(rel) != ".md" || strings.HasPrefix(rel, "docs/adr/") || rel == "docs/glossary.md" || rel == "docs/evasions.md" {
			return
		}
		text = strings.Join(strings.Fields(prose(text)), " ")
		for phrase, instead := range dialect {
			for _, at := range regexp.MustCompile(`(?i)\b`+phrase+`\b`).FindAllStringIndex(text, -1) {
				t.Errorf("%s: %q: %s", rel, text[max(0, at[0]-30):min(len(text), at[1]+20)], instead)
			}
		}
	})
}
