package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// An event is one line of `go test -json` (see `go doc test2json` and `go help buildjson`).
type event struct {
	Time        time.Time
	Action      string
	Package     string
	Test        string
	Elapsed     float64 // seconds
	Output      string
	ImportPath  string // of a build-output or build-fail event
	FailedBuild string // of a fail event: the ImportPath of the build that failed
}

// outcome is how a test ended.
type outcome int

const (
	unfinished outcome = iota
	passed
	failed
	skipped
	nOutcomes
)

// A line is something a package printed, on behalf of one of its tests or, with test
// "", of none.
type line struct{ test, text string }

// testRun is one test or subtest.
type testRun struct {
	name    string
	outcome outcome
	elapsed time.Duration
	// subtests counts its subtests by outcome, once the package has ended.
	subtests [nOutcomes]int
}

// packageRun is one package while it is tested.
type packageRun struct {
	path    string
	started time.Time
	tests   []*testRun // in order of their start
	byName  map[string]*testRun
	output  []line
}

// A report collects events, prints a line for each package when it ends and the totals
// at the end. It is not safe for concurrent use.
type report struct {
	out     io.Writer
	skips   allowedSkips
	enforce bool

	running map[string]*packageRun
	builds  map[string][]string // output of builds by import path

	nPassed, nFailed, nSkipped int
	nPackages                  int
	stageFailed                bool
	failures                   []string // "package: test", in order
	refusedSkips               []string
	acceptedSkips              []string
	untested                   []string
	slow                       []timing
}

// timing is how long one top-level test took.
type timing struct {
	name    string
	elapsed time.Duration
}

func newReport(out io.Writer, skips allowedSkips, enforce bool) *report {
	return &report{
		out: out, skips: skips, enforce: enforce,
		running: map[string]*packageRun{}, builds: map[string][]string{},
	}
}

// stage prints the heading of the next run of go test.
func (r *report) stage(title string, packages int) {
	noun := "packages"
	if packages == 1 {
		noun = "package"
	}
	fmt.Fprintf(r.out, "== %s: %d %s\n", title, packages, noun)
	r.stageFailed = false
}

// line takes one line of go test's output and says whether a package ended with it.
func (r *report) line(text []byte) bool {
	var e event
	if err := json.Unmarshal(text, &e); err != nil || e.Action == "" {
		// go itself speaks: better shown than lost.
		fmt.Fprintf(r.out, "%s\n", text)
		return false
	}
	switch {
	case e.Action == "build-output":
		r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
	case e.Package == "" || e.Action == "build-fail":
	case e.Test != "":
		r.testEvent(e)
	case e.Action == "output":
		p := r.pkg(e)
		p.output = append(p.output, line{text: e.Output})
	case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
		r.endPackage(r.pkg(e), e)
		return true
	default: // start, pause, cont, bench, attr: known package
		r.pkg(e)
	}
	return false
}

// pkg returns the run of the event's package and notes its start.
func (r *report) pkg(e event) *packageRun {
	p, ok := r.running[e.Package]
	if !ok {
		p = &packageRun{path: e.Package, started: e.Time, byName: map[string]*testRun{}}
		r.running[e.Package] = p
	}
	return p
}

func (r *report) testEvent(e event) {
	p := r.pkg(e)
	t, ok := p.byName[e.Test]
	if !ok {
		t = &testRun{name: e.Test}
		p.byName[e.Test] = t
		p.tests = append(p.tests, t)
	}
	switch e.Action {
	case "output":
		p.output = append(p.output, line{e.Test, e.Output})
	case "pass", "fail", "skip":
		t.outcome = map[string]outcome{"pass": passed, "fail": failed, "skip": skipped}[e.Action]
		t.elapsed = seconds(e.Elapsed)
	}
}

// endPackage judges a package whose last event is e and prints its result.
func (r *report) endPackage(p *packageRun, e event) {
	delete(r.running, p.path)
	r.nPackages++
	if e.Action == "skip" && len(p.tests) == 0 {
		r.untested = append(r.untested, p.path)
		return
	}
	build := r.builds[e.FailedBuild]
	elapsed := seconds(e.Elapsed)
	if elapsed == 0 && !e.Time.IsZero() && !p.started.IsZero() {
		elapsed = e.Time.Sub(p.started)
	}

	n, bad, refused := r.countTests(p)
	if e.Action == "fail" && len(bad) == 0 {
		what := "(the package)"
		if e.FailedBuild != "" {
			what = "(does not build)"
		}
		r.nFailed++
		bad = append(bad, what)
	}
	tests := plural(n, "test")
	if len(bad)+len(refused) == 0 {
		fmt.Fprintf(r.out, "ok    %-52s %10s %8s\n", p.path, tests, short(elapsed))
		return
	}
	r.stageFailed = r.stageFailed || len(bad) > 0
	for _, name := range bad {
		r.failures = append(r.failures, p.path+": "+name)
	}
	r.refusedSkips = append(r.refusedSkips, refused...)
	fmt.Fprintf(r.out, "FAIL  %-52s %10s %8s\n", p.path, tests, short(elapsed))
	for _, text := range build {
		fmt.Fprint(r.out, text)
	}
	if len(bad) > 0 {
		r.printOutput(p)
	}
	for _, s := range refused {
		fmt.Fprintf(r.out, "skipped, which is not allowed here: %s\n", s)
	}
}

// countTests adds the package's tests to the totals. It returns their number, the names of
// those that failed or did not end, and the skips that are not allowed.
func (r *report) countTests(p *packageRun) (n int, bad, refused []string) {
	p.noteSubtests()
	for _, t := range p.tests {
		if !strings.Contains(t.name, "/") {
			r.slow = append(r.slow, timing{p.path + " " + t.name, t.elapsed})
		}
		if t.covered() {
			continue
		}
		n++
		switch t.outcome {
		case passed:
			r.nPassed++
		case failed:
			r.nFailed++
			bad = append(bad, t.name)
		case skipped:
			reason := skipReason(p.outputOf(t.name))
			entry := p.path + ": " + t.name + ": " + reason
			if r.enforce && !r.skips.allow(reason) {
				r.nFailed++
				refused = append(refused, entry)
			} else {
				r.nSkipped++
				r.acceptedSkips = append(r.acceptedSkips, entry)
			}
		default:
			r.nFailed++
			bad = append(bad, t.name+" (did not end)")
		}
	}
	return n, bad, refused
}

// noteSubtests tells every test of p how its subtests, at any depth, ended.
func (p *packageRun) noteSubtests() {
	for _, t := range p.tests {
		for i := range len(t.name) {
			if t.name[i] != '/' {
				continue
			}
			if parent := p.byName[t.name[:i]]; parent != nil {
				parent.subtests[t.outcome]++
			}
		}
	}
}

// covered says whether a test's outcome is told by its subtests: it passed and has some,
// or it ended otherwise and one of them did the same.
func (t *testRun) covered() bool {
	if t.outcome == passed {
		return t.subtests != [nOutcomes]int{}
	}
	return t.subtests[t.outcome] > 0
}

func (p *packageRun) outputOf(test string) []string {
	var texts []string
	for _, l := range p.output {
		if l.test == test {
			texts = append(texts, l.text)
		}
	}
	return texts
}

// printOutput prints what explains a package's failure: the output of the tests that
// failed and of the package itself. If the process died rather than reported, all of it:
// go test cannot tell then whose output the last words are.
func (r *report) printOutput(p *packageRun) {
	died := p.died()
	all := died || !slices.ContainsFunc(p.tests, func(t *testRun) bool { return t.outcome == failed })
	for _, l := range p.output {
		if l.test == "" && verdict(l.text) {
			continue
		}
		if all || l.test == "" || p.byName[l.test].outcome == failed {
			fmt.Fprint(r.out, l.text)
		}
	}
	if died {
		fmt.Fprintln(r.out, "The test process ended before its tests did: a crash, a kill or os.Exit.")
	}
}

// died says whether the package's tests began and the process ended without the word by
// which the testing package closes, or before each test had an outcome.
func (p *packageRun) died() bool {
	if len(p.tests) == 0 {
		return false
	}
	if slices.ContainsFunc(p.tests, func(t *testRun) bool { return t.outcome == unfinished }) {
		return true
	}
	return !slices.ContainsFunc(p.output, func(l line) bool {
		text := strings.TrimSpace(l.text)
		return l.test == "" && (text == "PASS" || text == "FAIL")
	})
}

// verdict recognises the lines that this report replaces by its own.
func verdict(text string) bool {
	text = strings.TrimSpace(text)
	return text == "PASS" || text == "FAIL" || strings.HasPrefix(text, "FAIL\t") || strings.HasPrefix(text, "ok  \t")
}

// heartbeat names the packages that run, and of each the test that began last and has
// not ended.
func (r *report) heartbeat(now time.Time) {
	var parts []string
	for _, p := range r.running {
		if p.started.IsZero() {
			continue
		}
		test := ""
		for _, t := range slices.Backward(p.tests) {
			if t.outcome == unfinished {
				test = " " + t.name
				break
			}
		}
		parts = append(parts, fmt.Sprintf("%s (%s)%s", p.path, short(now.Sub(p.started)), test))
	}
	if len(parts) == 0 {
		parts = []string{"compiling"}
	}
	slices.Sort(parts)
	fmt.Fprintf(r.out, "...   %s\n", strings.Join(parts, ", "))
}

// endStage judges packages that go test left without a result, and says whether any
// package of the stage failed.
func (r *report) endStage() bool {
	left := make([]*packageRun, 0, len(r.running))
	for _, p := range r.running {
		left = append(left, p)
	}
	slices.SortFunc(left, func(a, b *packageRun) int { return cmp.Compare(a.path, b.path) })
	for _, p := range left {
		p.output = append(p.output, line{text: "go test ended without a result for this package\n"})
		r.endPackage(p, event{Action: "fail", Package: p.path})
	}
	return r.stageFailed
}

// broken notes that go test itself failed.
func (r *report) broken(what string) {
	r.nFailed++
	r.failures = append(r.failures, what)
	fmt.Fprintf(r.out, "FAIL  %s\n", what)
}

// close prints the totals and says whether all is well.
func (r *report) close() bool {
	slices.SortStableFunc(r.slow, func(a, b timing) int { return cmp.Compare(b.elapsed, a.elapsed) })
	for i, t := range r.slow {
		if i == 5 || t.elapsed < 2*time.Second {
			break
		}
		if i == 0 {
			fmt.Fprintln(r.out, "\nSlowest tests:")
		}
		fmt.Fprintf(r.out, "  %8s  %s\n", short(t.elapsed), t.name)
	}
	r.section("Packages without tests", r.untested)
	r.section("Skipped", r.acceptedSkips)
	r.section("Skipped, which is not allowed here (make the test run, or put the reason on the list of allowed skips)", r.refusedSkips)
	r.section("Failed", r.failures)
	none := r.nPassed+r.nFailed+r.nSkipped == 0
	if none {
		fmt.Fprintln(r.out, "\nNo test ran: that is a failure too.")
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", r.nPassed, r.nFailed, r.nSkipped)
	return r.nFailed == 0 && !none
}

func (r *report) section(title string, entries []string) {
	if len(entries) == 0 {
		return
	}
	fmt.Fprintf(r.out, "\n%s:\n", title)
	for _, e := range entries {
		fmt.Fprintf(r.out, "  %s\n", e)
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// short prints a duration to a tenth of a second.
func short(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
