package main

import "testing"

// TestRenewal: the first attempt is made at once, the pauses double up to a minute, and a device
// that has worked for a minute begins anew; one that stops soon does not.
func TestRenewal(t *testing.T) {
	const second = int64(1e9)
	var r renewal
	now := 5 * second
	for i, want := range []int64{0, 1, 2, 4, 8, 16, 32, 60, 60} {
		for at := now; at < now+want*second; at += second / 2 {
			if r.due(at) {
				t.Fatalf("attempt %d comes %d ns early", i, now+want*second-at)
			}
		}
		if now += want * second; !r.due(now) {
			t.Fatalf("attempt %d is not made after %d s", i, want)
		}
	}
	r.worked(now)
	if now += 59 * second; r.due(now) {
		t.Error("it stops again within a minute, and is tried at once")
	}
	now += 2 * second
	if !r.due(now) {
		t.Error("it is not tried after the pause")
	}
	r.worked(now)
	if now += 60 * second; !r.due(now) {
		t.Error("it has worked for a minute, and is not tried at once")
	}
	if r.due(now+second-1) || !r.due(now+second) {
		t.Error("the second attempt is not made after one second")
	}
	if !r.news("a") || r.news("a") || !r.news("b") || !r.news("a") {
		t.Error("reasons are not reported once")
	}
	if r.worked(now); !r.news("a") {
		t.Error("a reason after success is not reported")
	}
}
