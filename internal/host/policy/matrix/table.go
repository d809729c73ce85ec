package matrix

// A Table is one side as it is shown. Of a large one much is left out unless all is asked
// for; Left says what.
type Table struct {
	From  string `json:"from"` // lan or wan
	Title string `json:"title"`
	Heads []Head `json:"heads"`
	Rows  []Row  `json:"rows"`
	Left  string `json:"left,omitempty"`
}

// A Head is a column: a class of hosts.
type Head struct {
	Label     string   `json:"label"`
	Addresses []string `json:"addresses"` // networks and ranges, the first of them
}

// A Row is a service.
type Row struct {
	Service string   `json:"service"`
	Names   []string `json:"names,omitempty"` // the first patterns of those that open it
	Cells   []Shown  `json:"cells"`           // one for each column
}

// A Shown is a cell in words.
type Shown struct {
	Text  string   `json:"text"`
	Kind  Kind     `json:"kind,omitempty"`  // "": nothing is reached
	Rules []string `json:"rules,omitempty"` // the first of those that accept
}

// A Kind says how much a cell reaches.
type Kind string

// The kinds of cells.
const (
	KindAll  Kind = "all"  // everything on the other side
	KindName Kind = "name" // everything that has the name
	KindSome Kind = "some" // what the cell says
)

// mostShown is how many addresses, names and rules stand at a column, row or cell.
const mostShown = 12

func first[T any](all []T) []T { return all[:min(len(all), mostShown)] }

// kind returns how much a cell of a service reaches.
func (s *Service) kind(c *Cell) Kind {
	switch {
	case c == nil:
		return ""
	case c.Everywhere && len(s.Names) > 0:
		return KindName
	case c.Everywhere:
		return KindAll
	}
	return KindSome
}

// Tables returns the matrix as it is shown.
func (m *Matrix) Tables(all bool) []Table {
	var out []Table
	for i := range m.Sides {
		s, left := m.Sides[i].cut(all)
		t := Table{From: s.From, Title: s.title(), Heads: []Head{}, Rows: []Row{}, Left: left}
		for j := range s.Sources {
			t.Heads = append(t.Heads, Head{s.Sources[j].Label, first(s.Sources[j].Addresses)})
		}
		for k := range s.Services {
			v := &s.Services[k]
			row := Row{Service: v.title(1), Names: first(v.Names)}
			for j := range s.Sources {
				c := v.Cell(j)
				cell := Shown{Text: c.words(), Kind: v.kind(c)}
				if c != nil {
					cell.Rules = first(c.Rules)
				}
				row.Cells = append(row.Cells, cell)
			}
			t.Rows = append(t.Rows, row)
		}
		out = append(out, t)
	}
	return out
}
