package dashboard

import "sort"

// topKeys is how many keys a tally holds.
const topKeys = 256

// maxKey is the largest length of a key in bytes: that of a domain name.
const maxKey = 255

// A tally counts keys in bounded memory. When it is full, a new key replaces the least
// frequent one and inherits its count (the space-saving algorithm): frequent keys are
// never missed, and counts are too high by at most the least one.
type tally map[string]int64

func (t tally) add(key string, n int64) {
	key = cutBytes(key, maxKey)
	if _, ok := t[key]; !ok && len(t) >= topKeys {
		least, at := int64(-1), ""
		for k, c := range t {
			if least < 0 || c < least || c == least && k < at {
				least, at = c, k
			}
		}
		delete(t, at)
		n += least
	}
	if c, ok := t[key]; ok {
		t[key] = add(c, n)
		return
	}
	t[clone(key)] = min(n, maxSum)
}

// A Count is a key and its count.
type Count struct {
	Key   string `json:"key"`
	Count int64  `json:"count"`
}

// top returns the n most frequent keys.
func (t tally) top(n int) []Count {
	c := make([]Count, 0, len(t))
	for k, v := range t {
		c = append(c, Count{k, v})
	}
	sort.Slice(c, func(i, j int) bool {
		return c[i].Count > c[j].Count || c[i].Count == c[j].Count && c[i].Key < c[j].Key
	})
	return c[:min(n, len(c))]
}
