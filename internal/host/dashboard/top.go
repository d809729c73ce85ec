package dashboard

import (
	"cmp"
	"slices"
)

// topKeys is how many names or sources a tally holds.
const topKeys = 256

// maxKey is the largest length of a key in bytes: that of a domain name.
const maxKey = 255

// A tally counts keys in bounded memory. When it is full, a new key replaces the least
// frequent one and inherits its count (the space-saving algorithm): frequent keys are
// never missed, and counts are too high by at most the least one.
type tally[K comparable] map[K]int64

// add counts a key n times, in a tally of at most so many.
func (t *tally[K]) add(key K, n int64, most int, compare func(a, b K) int) {
	if *t == nil {
		*t = tally[K]{}
	}
	m := *t
	if _, ok := m[key]; !ok && len(m) >= most {
		var at K
		least := int64(-1)
		for k, c := range m {
			if least < 0 || c < least || c == least && compare(k, at) < 0 {
				least, at = c, k
			}
		}
		delete(m, at)
		n += least
	}
	if c, ok := m[key]; ok {
		m[key] = add(c, n)
		return
	}
	m[key] = min(n, maxSum)
}

// addKey counts a text from outside, cut to what is kept of one.
func addKey(t *tally[string], key string, n int64) {
	t.add(clone(cutBytes(key, maxKey)), n, topKeys, cmp.Compare)
}

// A Count is a key and its count.
type Count struct {
	Key   string `json:"key"`
	Count int64  `json:"count"`
}

// top returns the n most frequent keys of a tally of texts.
func (t tally[K]) top(n int) []Count {
	c := make([]Count, 0, len(t))
	for k, v := range t {
		if s, ok := any(k).(string); ok {
			c = append(c, Count{s, v})
		}
	}
	slices.SortFunc(c, func(a, b Count) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Key, b.Key)) })
	return c[:min(n, len(c))]
}
