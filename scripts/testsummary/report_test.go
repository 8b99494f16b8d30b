package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// feed hands events to a report of one stage and returns what it printed and whether all
// is well.
func feed(t *testing.T, skips allowedSkips, enforce bool, events ...event) (string, bool) {
	t.Helper()
	var out strings.Builder
	r := newReport(&out, skips, enforce)
	r.stage("go test", 1)
	for _, e := range events {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		r.line(text)
	}
	r.endStage()
	ok := r.close()
	return out.String(), ok
}

// test returns the events of one test: its start, what it prints and its end ("" for none).
func test(name, end string, output ...string) []event {
	events := []event{{Action: "run", Package: "p", Test: name}}
	for _, text := range output {
		events = append(events, event{Action: "output", Package: "p", Test: name, Output: text})
	}
	if end != "" {
		events = append(events, event{Action: end, Package: "p", Test: name, Elapsed: 0.5})
	}
	return events
}

func join(groups ...[]event) []event {
	var all []event
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

func end(action string) []event { return []event{{Action: action, Package: "p", Elapsed: 1.25}} }

// wantLast checks the closing line, which other programs read.
func wantLast(t *testing.T, out, want string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if got := lines[len(lines)-1]; got != want {
		t.Errorf("the last line is %q, want %q; all of it:\n%s", got, want, out)
	}
}

func wantHas(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(out, part) {
			t.Errorf("the report lacks %q:\n%s", part, out)
		}
	}
}

func wantLacks(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(out, part) {
			t.Errorf("the report has %q, which it should leave out:\n%s", part, out)
		}
	}
}

func TestTotalsCountChecks(t *testing.T) {
	cases := []struct {
		name   string
		events []event
		want   string
		ok     bool
	}{
		{"plain", join(test("A", "pass"), test("B", "pass"), end("pass")), "2 passed, 0 failed, 0 skipped", true},
		{
			"a parent is told by its subtests",
			join(test("A", ""), test("A/1", "pass"), test("A/2", "pass"), test("A", "pass"), end("pass")),
			"2 passed, 0 failed, 0 skipped", true,
		},
		{
			"a name that is a prefix is no parent",
			join(test("A", "pass"), test("AB", "pass"), end("pass")),
			"2 passed, 0 failed, 0 skipped", true,
		},
		{
			"one failed subtest",
			join(test("A", ""), test("A/1", "pass"), test("A/2", "fail"), test("A", "fail"), end("fail")),
			"1 passed, 1 failed, 0 skipped", false,
		},
		{
			"a parent that fails after its subtests passed",
			join(test("A", ""), test("A/1", "pass"), test("A", "fail"), end("fail")),
			"1 passed, 1 failed, 0 skipped", false,
		},
		{
			"a deep failure is one failure",
			join(test("A", ""), test("A/1", ""), test("A/1/x", "fail"), test("A/1", "fail"), test("A", "fail"), end("fail")),
			"0 passed, 1 failed, 0 skipped", false,
		},
		{"skips are allowed on a desk", join(test("A", "pass"), test("B", "skip"), end("pass")), "1 passed, 0 failed, 1 skipped", true},
		{"a package fails though its tests passed", join(test("A", "pass"), end("fail")), "1 passed, 1 failed, 0 skipped", false},
		{"a test without an end", join(test("A", "pass"), test("B", ""), end("fail")), "1 passed, 1 failed, 0 skipped", false},
		{"a test without an end in a package that says it passed", join(test("B", ""), end("pass")), "0 passed, 1 failed, 0 skipped", false},
		{"a package without an end", join(test("A", "pass")), "1 passed, 1 failed, 0 skipped", false},
		{"no test", end("skip"), "0 passed, 0 failed, 0 skipped", false},
		{"nothing at all", nil, "0 passed, 0 failed, 0 skipped", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			out, ok := feed(t, nil, false, c.events...)
			wantLast(t, out, c.want)
			if ok != c.ok {
				t.Errorf("all is well: got %t, want %t:\n%s", ok, c.ok, out)
			}
		})
	}
}

func TestFailureShowsItsOutputOnly(t *testing.T) {
	out, _ := feed(t, nil, false, join(
		test("Good", "pass", "good says\n"),
		test("Bad", "fail", "=== RUN   Bad\n", "    a_test.go:1: got 1, want 2\n", "--- FAIL: Bad (0.50s)\n"),
		[]event{
			{Action: "output", Package: "p", Output: "leaked by TestMain\n"},
			{Action: "output", Package: "p", Output: "FAIL\n"},
			{Action: "output", Package: "p", Output: "exit status 1\n"},
			{Action: "output", Package: "p", Output: "FAIL\tp\t1.250s\n"},
		}, end("fail"))...)
	wantHas(t, out, "got 1, want 2", "leaked by TestMain", "\nFailed:\n  p: Bad\n", "FAIL  p ")
	wantLacks(t, out, "good says", "FAIL\tp")
}

// When a process dies, go test may count its last words to a test that has passed.
func TestDeathShowsAllOutput(t *testing.T) {
	events := join(test("Good", "pass", "panic: in a goroutine of Good\n"), test("Bad", "fail", "got 1\n"))
	out, ok := feed(t, nil, false, join(events, end("fail"))...)
	wantHas(t, out, "panic: in a goroutine of Good", "got 1", "ended before its tests did")
	if ok {
		t.Errorf("a dead process passed:\n%s", out)
	}
	closed := []event{{Action: "output", Package: "p", Output: "FAIL\n"}}
	out, _ = feed(t, nil, false, join(events, closed, end("fail"))...)
	wantLacks(t, out, "panic", "ended before its tests did")
}

func TestBuildFailureIsShown(t *testing.T) {
	out, ok := feed(t, nil, false,
		event{Action: "build-output", ImportPath: "p [p.test]", Output: "# p\n"},
		event{Action: "build-output", ImportPath: "p [p.test]", Output: "./a.go:3:1: undefined: x\n"},
		event{Action: "build-fail", ImportPath: "p [p.test]"},
		event{Action: "start", Package: "p"},
		event{Action: "output", Package: "p", Output: "FAIL\tp [build failed]\n"},
		event{Action: "fail", Package: "p", FailedBuild: "p [p.test]"},
	)
	wantHas(t, out, "undefined: x", "p: (does not build)")
	wantLast(t, out, "0 passed, 1 failed, 0 skipped")
	if ok {
		t.Error("a package that does not build passed")
	}
}

func TestSkipsUnderEnforcement(t *testing.T) {
	allowed := allowedSkips{compiled(t, `needs root: .*`)}
	skip := func(name, reason string) []event {
		return test(name, "skip", "=== RUN   "+name+"\n", "    x_test.go:7: "+reason+"\n", "--- SKIP: "+name+" (0.00s)\n")
	}
	out, ok := feed(t, allowed, true, join(test("A", "pass"), skip("B", "needs root: mount"), end("pass"))...)
	if wantLast(t, out, "1 passed, 0 failed, 1 skipped"); !ok {
		t.Errorf("an allowed skip was refused:\n%s", out)
	}
	out, ok = feed(t, allowed, true, join(test("A", "pass"), skip("B", "no rclone here"), end("pass"))...)
	wantLast(t, out, "1 passed, 1 failed, 0 skipped")
	wantHas(t, out, "p: B: no rclone here", "FAIL  p ")
	if ok {
		t.Error("a skip that is not on the list passed")
	}
	out, ok = feed(t, allowed, true, join(skip("B", "this needs root: mount"), end("pass"))...)
	if ok {
		t.Errorf("an entry of the list must match the whole reason:\n%s", out)
	}
}

func TestHeartbeatNamesWhatRuns(t *testing.T) {
	var out strings.Builder
	r := newReport(&out, nil, false)
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.heartbeat(began)
	wantHas(t, out.String(), "compiling")
	r.line([]byte(`{"Time":"2026-01-02T03:04:05Z","Action":"start","Package":"p"}`))
	r.heartbeat(began.Add(90 * time.Second))
	wantHas(t, out.String(), "p (90.0s)\n")
	for _, e := range join(test("A", "pass"), test("B", ""), test("C", "pass")) {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		r.line(text)
	}
	r.heartbeat(began.Add(100 * time.Second))
	wantHas(t, out.String(), "p (100.0s) B\n")
}

func TestWhatGoSaysOutsideJSONIsShown(t *testing.T) {
	var out strings.Builder
	newReport(&out, nil, false).line([]byte("go: something is wrong"))
	wantHas(t, out.String(), "go: something is wrong")
}
