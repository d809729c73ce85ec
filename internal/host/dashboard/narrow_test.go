package dashboard

import (
	"testing"
	"time"
)

// TestPageOnAPhone: each view fits into 390 points, or its tables can be moved.
func TestPageOnAPhone(t *testing.T) {
	address, session := served(t, demonstration(time.Now()))
	b := newTab(t, address+"#token="+session)
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": false})
	b.expect("document.getElementById('state').textContent", "198.51.100.2 is connected")
	b.is("innerWidth", "390")
	const wide = `[...document.querySelectorAll("main *, header *, .legend *")].filter((e) => {
		for (let p = e.parentElement; p; p = p.parentElement) if (["auto", "scroll"].includes(getComputedStyle(p).overflowX)) return false;
		return e.getBoundingClientRect().right > innerWidth;
	}).map((e) => e.tagName + "." + e.className + " in " + e.parentElement.className).slice(0, 8).join("; ")`
	for _, view := range []string{"", "view=rule&key=allow-web", "view=host&key=10.20.0.9", "view=policy"} {
		b.eval("location.hash = " + `"` + view + `"`)
		time.Sleep(2 * time.Second)
		b.is("document.documentElement.scrollWidth - document.documentElement.clientWidth", "0")
		if out := b.eval(wide); out != "" {
			t.Errorf("%q: wider than the screen: %s", view, out)
		}
	}
}

// TestAxes: each axis has its unit, and of nothing it has numbers that differ.
func TestAxes(t *testing.T) {
	address, session := served(t, demonstration(time.Now()))
	b := newTab(t, address+"#token="+session)
	b.expect("document.getElementById('state').textContent", "198.51.100.2 is connected")
	b.is(`[...document.querySelectorAll(".plot text.unit")].map((e) => e.textContent).join()`, "/s,bit/s,/s")
	for expression, want := range map[string]string{
		`withUnit(num(794), "bit/s")`:  "794 bit/s",
		`withUnit(num(1079), "bit/s")`: "1.08 kbit/s",
		`withUnit(num(2.4), "/s")`:     "2.4/s",
		`withUnit(num(24), "")`:        "24",
		`[...chart("Nothing", "/s", [{at: "2026-01-01T00:00:00Z", n: 0}, {at: "2026-01-01T00:00:10Z", n: 0}], [["n", "n"]], 400, 300).querySelectorAll("text[text-anchor=end]:not(.unit)")].map((e) => e.textContent).join()`: "0,0.2,0.4,0.6,0.8,1",
	} {
		b.is(expression, want)
	}
}
