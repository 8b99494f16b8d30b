package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// These tests run the real go test on a small module: what it says of a broken build, a
// panic or a time-out is its own business, and what the report must not lose.

// A goModule is a Go module in a folder of its own, with a package that passes.
type goModule struct {
	t   *testing.T
	dir string
}

func newModule(t *testing.T) goModule {
	t.Helper()
	m := goModule{t, t.TempDir()}
	m.file("go.mod", "module m\n\ngo 1.26\n")
	m.test("good", `func TestGood(t *testing.T) { t.Log("good says") }`)
	return m
}

func (m goModule) file(name, text string) {
	m.t.Helper()
	write(m.t, filepath.Join(m.dir, filepath.FromSlash(name)), text)
}

// test adds a package whose test file has the given body.
func (m goModule) test(pkg, body string) {
	m.t.Helper()
	m.file(pkg+"/"+pkg+"_test.go", "package "+pkg+"\n\nimport \"testing\"\n\n"+body+"\n")
}

// run runs the module's tests and returns the report and the error.
func (m goModule) run(change func(*options)) (string, error) {
	m.t.Helper()
	o := options{dir: m.dir, packages: []string{"./..."}, timeout: time.Minute, parallel: 2, heartbeat: time.Minute}
	if change != nil {
		change(&o)
	}
	var out strings.Builder
	err := run(m.t.Context(), o, &out, io.Discard)
	return out.String(), err
}

// wantFailed runs the module and checks that the run failed, and how it closed.
func (m goModule) wantFailed(change func(*options), last string, parts ...string) {
	m.t.Helper()
	out, err := m.run(change)
	if !errors.Is(err, errTestsFailed) {
		m.t.Errorf("got %v, want %v", err, errTestsFailed)
	}
	wantLast(m.t, out, last)
	wantHas(m.t, out, parts...)
	wantHas(m.t, out, "ok    m/good")
}

func TestRunPasses(t *testing.T) {
	m := newModule(t)
	m.file("empty/empty.go", "package empty\n")
	logPath := filepath.Join(t.TempDir(), "events")
	out, err := m.run(func(o *options) { o.logPath = logPath })
	if err != nil {
		t.Errorf("got %v, want no error", err)
	}
	wantLast(t, out, "1 passed, 0 failed, 0 skipped")
	wantHas(t, out, "ok    m/good", "Packages without tests:\n  m/empty\n")
	wantLacks(t, out, "good says")
	events, err := os.ReadFile(logPath)
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.Lines(string(events)) {
		if !json.Valid([]byte(text)) {
			t.Errorf("the log of events has the line %q", text)
		}
	}
	wantHas(t, string(events), "good says")
}

func TestRunFailures(t *testing.T) {
	cases := []struct {
		name, body, last string
		parts            []string
	}{
		{
			"a test fails", `func TestBad(t *testing.T) { t.Error("got 1, want 2") }`,
			"1 passed, 1 failed, 0 skipped",
			[]string{"got 1, want 2", "m/bad: TestBad"},
		},
		{
			"a build breaks", `func TestBad(t *testing.T) { undefinedName() }`,
			"1 passed, 1 failed, 0 skipped",
			[]string{"undefined: undefinedName", "m/bad: (does not build)"},
		},
		{
			"the syntax is wrong", `func TestBad(t *testing.T) {`,
			"1 passed, 1 failed, 0 skipped",
			[]string{"expected '}'", "m/bad: ("},
		},
		{
			"an import is missing", "import _ \"m/absent\"\n\nfunc TestBad(t *testing.T) {}",
			"1 passed, 1 failed, 0 skipped",
			[]string{"m/absent", "m/bad: ("},
		},
		{
			"vet objects", `func TestBad(t *testing.T) { t.Errorf("%d", "x") }`,
			"1 passed, 1 failed, 0 skipped",
			[]string{"wrong type string", "m/bad: ("},
		},
		{
			"a test panics", `func TestFine(t *testing.T) {}` + "\n" + `func TestBad(t *testing.T) { panic("at sea") }`,
			"2 passed, 1 failed, 0 skipped",
			[]string{"panic: at sea", "m/bad: TestBad"},
		},
		{
			"a goroutine panics after its test",
			`func TestBad(t *testing.T) { go panic("at sea"); }` + "\n" + `func TestHang(t *testing.T) { select {} }`,
			"",
			[]string{"panic: at sea", "m/bad: "},
		},
		{
			"the process exits early", "import \"os\"\n\nfunc TestBad(t *testing.T) { os.Exit(3) }",
			"1 passed, 1 failed, 0 skipped",
			[]string{"ended before its tests did", "m/bad: TestBad"},
		},
		{
			"the process says success too early", "import \"os\"\n\nfunc TestBad(t *testing.T) { os.Exit(0) }",
			"1 passed, 1 failed, 0 skipped",
			[]string{"m/bad: TestBad"},
		},
		{
			"TestMain fails", "import \"os\"\n\nfunc TestMain(m *testing.M) { m.Run(); println(\"left over\"); os.Exit(1) }\n\nfunc TestFine(t *testing.T) {}",
			"2 passed, 1 failed, 0 skipped",
			[]string{"left over", "m/bad: (the package)"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newModule(t)
			m.test("bad", c.body)
			if c.last != "" {
				m.wantFailed(nil, c.last, c.parts...)
				return
			}
			// Whose the last words are, and so the totals, is a matter of timing.
			out, err := m.run(nil)
			if !errors.Is(err, errTestsFailed) {
				t.Errorf("got %v, want %v", err, errTestsFailed)
			}
			wantHas(t, out, c.parts...)
		})
	}
}

func TestRunTimeout(t *testing.T) {
	m := newModule(t)
	m.test("slow", `func TestSlow(t *testing.T) { select {} }`)
	m.test("fine", `func TestFine(t *testing.T) {}`)
	m.wantFailed(func(o *options) { o.timeout = 3 * time.Second },
		"2 passed, 1 failed, 0 skipped", "m/slow: TestSlow", "test timed out after 3s", "ok    m/fine")
}

func TestRunSkips(t *testing.T) {
	m := newModule(t)
	m.test("peer", `func TestPeer(t *testing.T) { t.Skip("no such program: peer") }`)
	out, err := m.run(nil)
	if wantLast(t, out, "1 passed, 0 failed, 1 skipped"); err != nil {
		t.Errorf("a skip on a desk: got %v, want no error", err)
	}
	m.wantFailed(func(o *options) { o.enforceSkips = true },
		"1 passed, 1 failed, 0 skipped", "m/peer: TestPeer: no such program: peer")

	list := filepath.Join(t.TempDir(), "skips")
	write(t, list, "no such program: .*\n")
	out, err = m.run(func(o *options) { o.enforceSkips, o.allowedSkips = true, list })
	if wantLast(t, out, "1 passed, 0 failed, 1 skipped"); err != nil {
		t.Errorf("a skip that is on the list: got %v, want no error", err)
	}
}

func TestRunWithoutTests(t *testing.T) {
	m := newModule(t)
	if out, err := m.run(func(o *options) { o.testFlags = []string{"-run", "^TestAbsent$"} }); !errors.Is(err, errTestsFailed) {
		t.Errorf("a run of no test: got %v, want %v:\n%s", err, errTestsFailed, out)
	}
	if out, err := m.run(func(o *options) { o.packages = []string{"./absent/..."} }); err == nil {
		t.Errorf("packages that do not exist: got no error:\n%s", out)
	}
	if out, err := m.run(func(o *options) { o.testFlags = []string{"-no-such-flag"} }); !errors.Is(err, errTestsFailed) {
		t.Errorf("a flag that go test does not know: got %v, want %v:\n%s", err, errTestsFailed, out)
	}
}

func TestRunInterrupted(t *testing.T) {
	m := newModule(t)
	m.test("slow", `func TestSlow(t *testing.T) { select {} }`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := options{dir: m.dir, packages: []string{"./..."}, timeout: time.Minute, parallel: 2, heartbeat: time.Millisecond}
	out := &cancelWhen{text: " TestSlow\n", cancel: cancel}
	if err := run(ctx, o, out, io.Discard); !errors.Is(err, errTestsFailed) {
		t.Errorf("got %v, want %v", err, errTestsFailed)
	}
	wantHas(t, out.String(), "interrupted", "m/slow: TestSlow (did not end)", " failed, 0 skipped")
}

// cancelWhen is a buffer that cancels a context once a text was written to it.
type cancelWhen struct {
	strings.Builder
	text   string
	cancel context.CancelFunc
}

func (c *cancelWhen) Write(p []byte) (int, error) {
	if strings.Contains(string(p), c.text) {
		c.cancel()
	}
	return c.Builder.Write(p)
}

func TestPlanDividesByRace(t *testing.T) {
	m := newModule(t)
	m.test("heavy", `func TestHeavy(t *testing.T) {}`)
	list := filepath.Join(t.TempDir(), "no-race")
	write(t, list, "./heavy/... # slow\n")
	o := options{dir: m.dir, packages: []string{"./..."}, race: true, noRaceList: list}

	stages, err := plan(t.Context(), o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	got := describe(stages)
	if want := "-race:m/good :m/heavy"; got != want {
		t.Errorf("got stages %q, want %q", got, want)
	}
	o.onlyRace = true
	if stages, err = plan(t.Context(), o, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got, want := describe(stages), "-race:m/good"; got != want {
		t.Errorf("with onlyRace: got stages %q, want %q", got, want)
	}
	write(t, list, "./heavy/... # slow\n./gone # was slow\n")
	if _, err := plan(t.Context(), o, io.Discard); err == nil || !strings.Contains(err.Error(), "./gone") {
		t.Errorf("a list that names a package that is gone: got %v, want an error that names it", err)
	}
}

func describe(stages []stage) string {
	var parts []string
	for _, s := range stages {
		parts = append(parts, strings.Join(s.flags, " ")+":"+strings.Join(s.packages, ","))
	}
	return strings.Join(parts, " ")
}

func TestCommandLine(t *testing.T) {
	m := newModule(t)
	t.Chdir(m.dir)
	var out strings.Builder
	if err := command(t.Context(), []string{"-timeout", "1m", "./good", "--", "-run", "Good"}, &out, io.Discard); err != nil {
		t.Errorf("got %v, want no error:\n%s", err, out.String())
	}
	wantLast(t, out.String(), "1 passed, 0 failed, 0 skipped")
	if err := command(t.Context(), []string{"-no-such-flag"}, io.Discard, io.Discard); err == nil {
		t.Error("an unknown flag was taken")
	}
}
