package dashboard

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A tab is a tab of a real browser that is driven as a person would, by the Chrome
// DevTools Protocol over a pipe: JSON messages that end in a zero byte.
type tab struct {
	t       *testing.T
	w       io.Writer
	r       *bufio.Reader
	session string
	id      int
}

// profile returns a folder for a browser, whose processes may still write into it for a
// moment after the first one has ended.
func profile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "thurward-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); os.RemoveAll(dir) != nil; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%s cannot be removed", dir)
				return
			}
		}
	})
	return dir
}

func newTab(t *testing.T, url string) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is missing (apt-get install chromium)")
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	cmd := exec.CommandContext(ctx, path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1000",
		"--user-data-dir="+profile(t), "--remote-debugging-pipe")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	t.Cleanup(func() { cancel(); cmd.Wait(); in.Close(); out.Close() }) //nolint:errcheck // it was ended
	b := &tab{t: t, w: in, r: bufio.NewReader(out)}
	target := b.call("Target.createTarget", map[string]any{"url": url})["targetId"]
	b.session, _ = b.call("Target.attachToTarget", map[string]any{"targetId": target, "flatten": true})["sessionId"].(string)
	return b
}

// call calls a method and returns its result.
func (b *tab) call(method string, params map[string]any) map[string]any {
	b.t.Helper()
	b.id++
	m := map[string]any{"id": b.id, "method": method, "params": params}
	if b.session != "" {
		m["sessionId"] = b.session
	}
	text, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.w.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		text, err := b.r.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var answer struct {
			ID     int
			Result map[string]any
			Error  any
		}
		if err := json.Unmarshal(text[:len(text)-1], &answer); err != nil {
			b.t.Fatal(err)
		}
		if answer.ID != b.id {
			continue // an event
		}
		if answer.Error != nil {
			b.t.Fatalf("%s: %v", method, answer.Error)
		}
		return answer.Result
	}
}

// eval returns what an expression is, as text.
func (b *tab) eval(expression string) string {
	b.t.Helper()
	r, _ := b.call("Runtime.evaluate", map[string]any{"expression": "String(" + expression + ")"})["result"].(map[string]any)
	s, _ := r["value"].(string)
	return s
}

// expect waits until an expression has a text in it.
func (b *tab) expect(expression, want string) {
	b.t.Helper()
	b.wait(expression, want, strings.Contains)
}

// is waits until an expression is a text.
func (b *tab) is(expression, want string) {
	b.t.Helper()
	b.wait(expression, want, func(got, want string) bool { return got == want })
}

func (b *tab) wait(expression, want string, ok func(got, want string) bool) {
	b.t.Helper()
	got := ""
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = b.eval(expression); ok(got, want) {
			return
		}
	}
	b.t.Fatalf("%s is %q, want %q", expression, got, want)
}

// still waits until an element has stayed where it is: what is above it may just have been
// drawn, and a click would miss it.
func (b *tab) still(element string) {
	b.t.Helper()
	place := fmt.Sprintf("JSON.stringify(document.querySelector(%q)?.getBoundingClientRect())", element)
	b.eval(fmt.Sprintf("document.querySelector(%q)?.scrollIntoView({block: 'center'})", element))
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
		before := b.eval(place)
		time.Sleep(200 * time.Millisecond)
		if b.eval(place) == before && !strings.Contains(before, `"width":0`) && before != "undefined" {
			return
		}
	}
	b.t.Fatalf("%s does not stand still", element)
}

// mouse moves the pointer to a place within an element, and clicks.
func (b *tab) mouse(element string, x, y float64, click bool) {
	b.t.Helper()
	b.still(element)
	var box struct{ X, Y, Width, Height float64 }
	b.eval(fmt.Sprintf("document.querySelector(%q).scrollIntoView({block: 'center'})", element))
	if err := json.Unmarshal([]byte(b.eval(fmt.Sprintf("JSON.stringify(document.querySelector(%q).getBoundingClientRect())", element))), &box); err != nil {
		b.t.Fatalf("%s: %v", element, err)
	}
	at := map[string]any{"type": "mouseMoved", "x": box.X + x*box.Width, "y": box.Y + y*box.Height}
	b.call("Input.dispatchMouseEvent", at)
	if click {
		for _, what := range []string{"mousePressed", "mouseReleased"} {
			at["type"], at["button"], at["clickCount"] = what, "left", 1
			b.call("Input.dispatchMouseEvent", at)
		}
	}
}

// TestPageByHand: in a real browser, the values under the pointer are shown and stay while
// the page renews itself; the time range, the colours, the lists' filters and the links work.
func TestPageByHand(t *testing.T) {
	now := time.Now()
	address, session := served(t, demonstration(now))
	b := newTab(t, address+"#token="+session)
	b.expect("document.title", "thurward")
	b.expect("document.getElementById('state').textContent", "198.51.100.2 is connected")
	b.expect("location.hash", "")
	if h := b.eval("location.href"); strings.Contains(h, session) {
		t.Errorf("the token stays in the address: %s", h)
	}
	const charts, tip = "document.querySelectorAll('.plot').length", "document.querySelector('.plot .tip:not([hidden])')?.textContent"
	b.expect(charts, "4")
	b.expect(tip, "undefined")
	b.mouse(".plot svg", 0.5, 0.5, false)
	b.expect(tip, "accepted")
	shown := b.eval(tip)
	b.is("document.querySelectorAll('.plot .cross').length", "1")
	time.Sleep(2500 * time.Millisecond) // it renews itself each second
	if again := b.eval(tip); again != shown {
		t.Errorf("under the pointer was %q, and is %q", shown, again)
	}
	b.mouse(".plot svg", 0.2, 0.5, false)
	if left := b.eval(tip); left == shown || !strings.Contains(left, "dropped") {
		t.Errorf("at another place: %q", left)
	}
	b.mouse("h1", 0.5, 0.5, false)
	b.expect(tip, "undefined")
	// Two hours have more points than five minutes.
	const points = "document.querySelector('.plot path.line').getAttribute('d').split('L').length"
	b.mouse("#ranges button:first-child", 0.5, 0.5, true)
	b.is("document.querySelector('#ranges [aria-pressed=true]').textContent", "5 min")
	b.is(points, "31")
	b.mouse("#ranges button:last-child", 0.5, 0.5, true)
	b.is("document.querySelector('#ranges [aria-pressed=true]').textContent", "2 h")
	if many := b.eval(points); len(many) != 3 {
		t.Errorf("%s points of two hours", many)
	}
	// Light, dark, and as the system.
	const paper = "getComputedStyle(document.body).backgroundColor"
	light := b.eval(paper)
	b.mouse("#theme", 0.5, 0.5, true)
	b.expect("document.getElementById('theme').textContent", "light")
	b.mouse("#theme", 0.5, 0.5, true)
	b.expect("document.getElementById('theme').textContent", "dark")
	if dark := b.eval(paper); dark == light {
		t.Errorf("dark is %s, as light", dark)
	}
	// The policy, what never decided, and one rule.
	b.mouse("#views button:nth-child(2)", 0.5, 0.5, true)
	const rows = "document.querySelectorAll('#policyrules tbody tr').length"
	b.is(rows, "14")
	b.expect("document.getElementById('rulecount').textContent", "14 rules, 2 of them have not decided")
	b.mouse("#never", 0.5, 0.5, true)
	b.is(rows, "2")
	b.mouse("#never", 0.5, 0.5, true)
	b.mouse("#rulefilter", 0.5, 0.5, true)
	b.call("Input.insertText", map[string]any{"text": "debian"})
	b.is(rows, "1")
	b.mouse("#policyrules a", 0.5, 0.5, true)
	b.expect("document.getElementById('about').textContent", "rule updates")
	b.expect("document.getElementById('detailtext').textContent", "security.debian.org")
	b.mouse("#back", 0.5, 0.5, true)
	b.is(rows, "1")
	// Who may reach what, and by which rules; a cell leads to one of them.
	b.mouse("#views button:nth-child(3)", 0.5, 0.5, true)
	b.is("document.querySelectorAll('#reachtables article').length", "2")
	b.mouse("#reachtables .cell.all", 0.5, 0.5, false)
	b.expect("document.getElementById('reachrules').textContent", ", by ")
	b.mouse("#reachrules a", 0.5, 0.5, true)
	b.expect("document.getElementById('about').textContent", "rule ")
	// A verdict says whom it is about.
	b.mouse("#views button:first-child", 0.5, 0.5, true)
	b.is("document.getElementById('overview').hidden || document.getElementById('verdicts').hidden", "false")
	b.is("document.querySelectorAll('#recent div').length > 0", "true")
	b.mouse("#recent div", 0.3, 0.3, true)
	b.expect("document.querySelector('#recent div.open .more').textContent", "host ")
	b.mouse("#recent div.open .more a", 0.5, 0.5, true)
	b.expect("document.getElementById('about').textContent", "rule ")
	b.eval("window.broken = fetch('https://example.com/').then(() => 'loaded', () => 'refused').then((r) => document.title = r)")
	b.expect("document.title", "refused") // by the content security policy: there is no way to send anything elsewhere
}
