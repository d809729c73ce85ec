package export

import (
	"slices"
	"testing"
)

// TestSums: of several workers' metrics the sums are shown, or the largest value; a metric that only
// some of them have is shown once, and one with a value for each worker has each one's, however
// often it is shown.
func TestSums(t *testing.T) {
	family := func(name string, most bool, v ...uint64) Family {
		return Family{Name: name, Type: Counter, N: len(v), Most: most, Fill: func(to []uint64) { copy(to, v) }}
	}
	each := func(k, v uint64) Family {
		return Family{Name: "each", Type: Counter, N: 4, Fill: func(to []uint64) { to[k] = v }}
	}
	var others []*Metrics
	for k := range uint64(3) {
		o := &Metrics{}
		o.Add(family("sum", false, k, 10*k), family("most", true, 7*k), family("theirs", false, 1), each(k+1, 50+k))
		if k == 1 {
			o.Add(family("some", false, 5), Family{Name: "spread", Type: Histogram, Bounds: []uint64{1}, Fill: func(v []uint64) { copy(v, []uint64{1, 2, 30}) }})
		}
		o.Fill()
		others = append(others, o)
	}
	m := &Metrics{}
	m.Add(family("alone", false, 3))
	m.AddSums(others, each(0, 40), family("sum", false, 100, 200), family("most", true, 9), family("some", false, 1), family("alone", false, 4),
		Family{Name: "spread", Type: Histogram, Bounds: []uint64{1}, Fill: func(v []uint64) { copy(v, []uint64{10, 20, 300}) }})
	for range 2 { // again the same
		m.Fill()
		var got []uint64
		for i := range m.families {
			got = append(got, m.families[i].v...)
		}
		if want := []uint64{3, 40, 50, 51, 52, 103, 230, 14, 6, 4, 11, 22, 330}; !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	}
}
