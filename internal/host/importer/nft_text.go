package importer

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// text returns a rule as its author wrote it, where that is known, or as nft would
// write it.
func (p *nftParser) text(n nftPlace, handle any, expr []any) string {
	if t := p.authors[n.key()+" "+word(handle)]; t.text != "" {
		return t.text
	}
	var words []string
	for _, e := range expr {
		m, _ := e.(map[string]any)
		if len(m) != 1 {
			words = append(words, word(e))
			continue
		}
		for kind, arg := range m {
			words = append(words, statementText(kind, arg))
		}
	}
	return strings.Join(words, " ")
}

// statementText returns a statement in nft's own language, or close to it.
func statementText(kind string, arg any) string {
	m, _ := arg.(map[string]any)
	switch kind {
	case "match":
		op := word(m["op"])
		if op == "==" || op == "in" {
			op = ""
		}
		return strings.Join(slices.DeleteFunc([]string{expressionText(m["left"]), op, expressionText(m["right"])}, func(s string) bool { return s == "" }), " ")
	case "accept", "drop", "return", "continue", "notrack":
		return kind
	case "jump", "goto":
		return kind + " " + word(m["target"])
	case "counter":
		return "counter"
	case "log", "reject":
		s := kind
		if v, ok := m["prefix"]; ok {
			s += fmt.Sprintf(" prefix %q", word(v))
		}
		if v, ok := m["type"]; ok {
			s += " with " + word(v)
		}
		return s
	case "limit":
		return fmt.Sprintf("limit rate %s/%s", expressionText(m["rate"]), word(m["per"]))
	case "vmap":
		return expressionText(m["key"]) + " vmap " + pairsText(m["data"])
	case "masquerade", "redirect", "snat", "dnat":
		s := kind
		if a, ok := m["addr"]; ok {
			s += " to " + expressionText(a)
		}
		if port, ok := m["port"]; ok {
			if m["addr"] == nil {
				s += " to "
			}
			s += ":" + expressionText(port)
		}
		return s
	case "mangle":
		return expressionText(m["key"]) + " set " + expressionText(m["value"])
	}
	if arg == nil {
		return kind
	}
	return kind + " " + expressionText(arg)
}

// expressionText returns an expression in nft's own language, or as JSON.
func expressionText(v any) string {
	list := func(vs any, sep string) string {
		l, ok := vs.([]any)
		if !ok {
			return expressionText(vs)
		}
		var w []string
		for _, e := range l {
			w = append(w, expressionText(e))
		}
		return strings.Join(w, sep)
	}
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64, bool:
		return word(v)
	case []any:
		return list(v, ", ")
	case map[string]any:
		if len(v) != 1 {
			break
		}
		for _, k := range slices.Collect(maps.Keys(v)) {
			m, _ := v[k].(map[string]any)
			switch k {
			case "payload":
				return word(m["protocol"]) + " " + word(m["field"])
			case "meta":
				key := word(m["key"])
				if slices.Contains([]string{"iifname", "oifname", "iif", "oif"}, key) {
					return key
				}
				return "meta " + key
			case "ct":
				if m["dir"] != nil {
					return "ct " + word(m["dir"]) + " " + word(m["key"])
				}
				return "ct " + word(m["key"])
			case "fib":
				return "fib " + list(m["flags"], " . ") + " " + word(m["result"])
			case "set":
				if l, ok := v[k].([]any); ok {
					return "{ " + list(l, ", ") + " }"
				}
				return expressionText(v[k])
			case "elem":
				return expressionText(m["val"])
			case "concat":
				return list(v[k], " . ")
			case "range":
				return list(v[k], "-")
			case "prefix":
				return expressionText(m["addr"]) + "/" + word(m["len"])
			case "|":
				return list(v[k], " | ")
			case "&":
				return list(v[k], " & ")
			case "map":
				return expressionText(m["key"]) + " map " + pairsText(m["data"])
			}
		}
	}
	t, _ := json.Marshal(v)
	return string(t)
}

// pairsText returns the keys and values of a map.
func pairsText(v any) string {
	m, _ := v.(map[string]any)
	list, ok := m["set"].([]any)
	if !ok {
		return expressionText(v)
	}
	var w []string
	for _, e := range list {
		kv, ok := e.([]any)
		if !ok || len(kv) != 2 {
			w = append(w, expressionText(e))
			continue
		}
		value := expressionText(kv[1])
		if m, ok := kv[1].(map[string]any); ok && len(m) == 1 {
			for k, a := range m {
				if k != "concat" && k != "prefix" && k != "range" {
					value = statementText(k, a)
				}
			}
		}
		w = append(w, expressionText(kv[0])+" : "+value)
	}
	return "{ " + strings.Join(w, ", ") + " }"
}
