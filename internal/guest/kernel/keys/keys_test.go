package keys

import "testing"

func TestChord(t *testing.T) {
	for name, c := range map[string]struct {
		bytes string
		want  int // how often
	}{
		"Firecracker":         {"\x14\x11\xe0\x71", 1},
		"set 2, let go":       {"\x14\x11\x71\xf0\x71\xf0\x11\xf0\x14", 1},
		"set 1":               {"\x1d\x38\xe0\x53", 1},
		"right-hand keys":     {"\xe0\x1d\xe0\x38\x53", 1},
		"set 1, twice":        {"\x1d\x38\x53\xd3\xb8\x9d\x1d\x38\x53", 2},
		"Del alone":           {"\x71\xf0\x71\x53\xd3", 0},
		"Ctrl-Del":            {"\x14\x71\x1d\x53", 0},
		"Alt-Del":             {"\x11\x71\x38\x53", 0},
		"Ctrl let go":         {"\x14\x11\xf0\x14\x71", 0},
		"Alt let go":          {"\x14\x11\xf0\x11\x71", 0},
		"Ctrl let go, set 1":  {"\x1d\x38\x9d\x53", 0},
		"Alt let go, set 1":   {"\x1d\x38\xb8\x53", 0},
		"Del let go":          {"\x14\x11\xf0\x71", 0},
		"others between them": {"\x14\x1c\xf0\x1c\x11\xff\x00\xe0\x71", 1},
	} {
		var k Chord
		n := 0
		for i := range len(c.bytes) {
			if k.Press(c.bytes[i]) {
				n++
			}
		}
		if n != c.want {
			t.Errorf("%s: %d times, want %d", name, n, c.want)
		}
	}
}
