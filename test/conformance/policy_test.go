package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// keysOf calls do with each key of a JSON Schema's objects, wherever it is.
func keysOf(schema any, do func(key string, of map[string]any)) {
	switch s := schema.(type) {
	case map[string]any:
		if p, ok := s["properties"].(map[string]any); ok {
			for k, v := range p {
				if of, ok := v.(map[string]any); ok {
					do(k, of)
				}
			}
		}
		for _, v := range s {
			keysOf(v, do)
		}
	case []any:
		for _, v := range s {
			keysOf(v, do)
		}
	}
}

// TestPolicyPage: docs/policy.md has every key of a policy, and the schema's
// default of each for which it says one.
func TestPolicyPage(t *testing.T) {
	b, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	defaults := map[string]string{}
	for _, l := range strings.Split(page, "\n") {
		// Cells may have a pipe in a code span, written \|.
		c := strings.Split(strings.Trim(strings.ReplaceAll(l, `\|`, "/"), "| "), " | ")
		if len(c) != 3 {
			continue
		}
		for _, k := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(c[0], -1) {
			defaults[k[1]] = strings.Trim(c[2], "` ")
		}
	}
	b, err = os.ReadFile("../../schemas/rules.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema any
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	keys, compared := 0, 0
	keysOf(schema, func(key string, of map[string]any) {
		keys++
		if !strings.Contains(page, "`"+key) && !strings.Contains(page, "."+key) && !strings.Contains(page, "\n## "+key) && !strings.Contains(page, key+":") {
			t.Errorf("docs/policy.md does not have the key %s", key)
		}
		want, has := of["default"]
		said, says := defaults[key]
		if !has || !says {
			return
		}
		compared++
		if said != fmt.Sprint(want) {
			t.Errorf("docs/policy.md says that %s is %q by default; it is %v", key, said, want)
		}
	})
	if keys < 60 || compared < 20 {
		t.Errorf("%d keys, %d defaults compared", keys, compared)
	}
}
