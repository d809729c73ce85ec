// Package meant finds the word that somebody meant who typed another.
package meant

// Word returns the word that was probably meant, or "". At most two letters of it may be
// wrong, and more than half of a short word must be right.
func Word(typed string, words []string) string {
	best, d := "", 3
	for _, w := range words {
		if e := distance(typed, w); e < d && 2*e < len(w) {
			best, d = w, e
		}
	}
	return best
}

// distance is the number of letters to change, insert, leave out or exchange with the next one,
// each once, to come from one short word to another (optimal string alignment).
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			c := last[j-1]
			if a[i-1] != b[j-1] {
				c++
			}
			row[j] = min(c, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
