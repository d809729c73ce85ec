package vm

// What a program may do with an area: Linux's PROT bits.
const (
	Read  = 1
	Write = 2
	Exec  = 4
)

// MaxAreas bounds the number of areas. Go merges into a few dozen; the rest
// is room for fragmentation by partial unmapping.
const MaxAreas = 1024

// An Area is a stretch of address space with one protection. Start and End
// are page-aligned; End is exclusive. Prot 0 is a reservation: address space
// without memory.
type Area struct {
	Start, End uint64
	Prot       uint32
	Fixed      bool // part of the image: never unmapped, always present
}

// Areas is the set of areas, sorted, none overlapping. The zero value is
// empty.
type Areas struct {
	a [MaxAreas]Area
	n int
}

// Len returns the number of areas.
func (s *Areas) Len() int { return s.n }

// At returns the i-th area in order of address.
func (s *Areas) At(i int) Area { return s.a[i] }

// after returns the index of the first area that ends after addr.
func (s *Areas) after(addr uint64) int {
	lo, hi := 0, s.n
	for lo < hi {
		m := (lo + hi) / 2
		if s.a[m].End > addr {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo
}

// Find returns the area that contains addr.
func (s *Areas) Find(addr uint64) (Area, bool) {
	i := s.after(addr)
	if i < s.n && s.a[i].Start <= addr {
		return s.a[i], true
	}
	return Area{}, false
}

// Covered reports whether every byte of [start, end) lies in areas that
// allow all of prot.
func (s *Areas) Covered(start, end uint64, prot uint32) bool {
	if end < start {
		return false
	}
	for i := s.after(start); start < end; i++ {
		if i == s.n || s.a[i].Start > start || s.a[i].Prot&prot != prot {
			return false
		}
		start = s.a[i].End
	}
	return true
}

// Overlaps reports whether any area has a byte in [start, end).
func (s *Areas) Overlaps(start, end uint64) bool {
	i := s.after(start)
	return i < s.n && s.a[i].Start < end
}

// HasFixed reports whether a part of the image lies in [start, end).
func (s *Areas) HasFixed(start, end uint64) bool {
	for i := s.after(start); i < s.n && s.a[i].Start < end; i++ {
		if s.a[i].Fixed {
			return true
		}
	}
	return false
}

// Gap returns the lowest address at or above from, aligned to align (a power
// of two), where length bytes are free below limit.
func (s *Areas) Gap(from, limit, length, align uint64) (uint64, bool) {
	at := (from + align - 1) &^ (align - 1)
	for i := s.after(at); ; i++ {
		if at < from || at+length < at || at+length > limit { // also where a sum went round
			return 0, false
		}
		if i == s.n || at+length <= s.a[i].Start {
			return at, true
		}
		at = (s.a[i].End + align - 1) &^ (align - 1)
	}
}

// Set makes [start, end) one area of the given protection, in place of
// whatever was there. It reports false, having changed nothing, when there
// is no room for more areas. A stretch of no length changes nothing.
func (s *Areas) Set(start, end uint64, prot uint32, fixed bool) bool {
	if start >= end {
		return true
	}
	if s.n+2 > MaxAreas {
		return false
	}
	s.cut(start, end)
	i := s.after(start)
	for j := s.n; j > i; j-- {
		s.a[j] = s.a[j-1]
	}
	s.a[i] = Area{start, end, prot, fixed}
	s.n++
	s.join(i)
	if i > 0 {
		s.join(i - 1)
	}
	return true
}

// Remove takes [start, end) out of all areas. It reports false, having
// changed nothing, when that may need one area more than there is room for. A
// stretch of no length changes nothing.
func (s *Areas) Remove(start, end uint64) bool {
	if start >= end {
		return true
	}
	if s.n+1 > MaxAreas {
		return false
	}
	s.cut(start, end)
	return true
}

// cut removes [start, end), splitting the areas at its borders.
func (s *Areas) cut(start, end uint64) {
	i := s.after(start)
	if i < s.n && s.a[i].Start < start {
		if s.a[i].End > end { // the hole is inside one area
			for j := s.n; j > i; j-- {
				s.a[j] = s.a[j-1]
			}
			s.n++
			s.a[i+1].Start = end
		}
		s.a[i].End = start
		i++
	}
	k := i
	for k < s.n && s.a[k].End <= end {
		k++
	}
	if k < s.n && s.a[k].Start < end {
		s.a[k].Start = end
	}
	for j := k; j < s.n; j++ {
		s.a[i+j-k] = s.a[j]
	}
	s.n -= k - i
}

// join merges area i with the next one where they touch and are alike.
func (s *Areas) join(i int) {
	if i+1 >= s.n {
		return
	}
	a, b := &s.a[i], &s.a[i+1]
	if a.End != b.Start || a.Prot != b.Prot || a.Fixed != b.Fixed {
		return
	}
	a.End = b.End
	for j := i + 1; j < s.n-1; j++ {
		s.a[j] = s.a[j+1]
	}
	s.n--
}
