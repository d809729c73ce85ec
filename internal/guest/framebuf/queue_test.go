package framebuf

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestQueueModel compares two queues that share their links with two slices:
// every operation in any order, on queues of any length.
func TestQueueModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := NewPool(make([]byte, 12*Size), 0)
		links := NewLinks(pool)
		if len(links) != pool.Cap() {
			t.Fatalf("%d links for %d buffers", len(links), pool.Cap())
		}
		type tagged struct {
			f   Frame
			tag uint32
		}
		var queues [2]Queue
		var models [2][]tagged
		// put draws a frame that is in no queue.
		put := func(t *rapid.T, do func(q *Queue, m *[]tagged, x tagged)) {
			buf, ok := pool.Get()
			if !ok {
				return
			}
			i := rapid.IntRange(0, 1).Draw(t, "queue")
			x := tagged{Frame{Buf: buf, Len: rapid.Uint32Range(1, MaxLen).Draw(t, "length")}, rapid.Uint32().Draw(t, "tag")}
			do(&queues[i], &models[i], x)
		}
		// take draws a queue that is not empty.
		take := func(t *rapid.T, do func(q *Queue, m *[]tagged) (got, want Frame)) {
			i := rapid.IntRange(0, 1).Draw(t, "queue")
			if len(models[i]) == 0 {
				return
			}
			got, want := do(&queues[i], &models[i])
			if got != want {
				t.Fatalf("took %+v, want %+v", got, want)
			}
			pool.Put(got.Buf)
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				put(t, func(q *Queue, m *[]tagged, x tagged) {
					links.Push(q, x.f, x.tag)
					*m = append(*m, x)
				})
			},
			"insert": func(t *rapid.T) {
				put(t, func(q *Queue, m *[]tagged, x tagged) {
					i := rapid.IntRange(0, len(*m)).Draw(t, "before")
					links.Insert(q, i, x.f, x.tag)
					*m = slices.Insert(*m, i, x)
				})
			},
			"pop": func(t *rapid.T) {
				take(t, func(q *Queue, m *[]tagged) (got, want Frame) {
					want = (*m)[0].f
					*m = (*m)[1:]
					return links.Pop(q), want
				})
			},
			"remove": func(t *rapid.T) {
				take(t, func(q *Queue, m *[]tagged) (got, want Frame) {
					i := rapid.IntRange(0, len(*m)-1).Draw(t, "index")
					want = (*m)[i].f
					*m = slices.Delete(*m, i, i+1)
					return links.Remove(q, i), want
				})
			},
			"": func(t *rapid.T) {
				for i := range queues {
					var got []tagged
					q := &queues[i]
					f := q.First()
					for range q.Len() {
						got = append(got, tagged{f, links.Tag(f)})
						f = links.Next(f)
					}
					if !slices.Equal(got, models[i]) {
						t.Fatalf("queue %d is %v, want %v", i, got, models[i])
					}
				}
			},
		})
	})
}
