package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/job"
)

// runJob starts a job and waits for its end.
func runJob(t *testing.T, jobs []*job.Manager, s job.Spec) job.Job {
	t.Helper()
	j, err := jobs[0].Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return finish(t, jobs[len(jobs)-1], j.Spec.ID)
}

func wantBooks(t *testing.T, j job.Job, done, skipped, dropped int64) {
	t.Helper()
	b := j.Status.Books
	if j.Status.State != job.Done || b.Done.Objects != done || b.Skipped.Objects != skipped || b.Dropped.Objects != dropped ||
		b.Failed.Objects != 0 || b.Planned.Objects != done+skipped+dropped {
		t.Errorf("%s: %s %q, %+v; want %d done, %d skipped, %d dropped", j.Spec.Kind, j.Status.State, j.Status.Message, b, done, skipped, dropped)
	}
}

// TestSyncToCluster: a copy that follows deletions removes from a bucket of the
// cluster what it copied before and the remote has no more, and nothing else.
func TestSyncToCluster(t *testing.T) {
	tc, f, from, jobs := startJobs(t, 3, nil)
	want := fill(f, 60, func(i int) string { return fmt.Sprintf("k%02d", i) })
	spec := job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "shoal://copy", All: true, Prepend: "x/"}
	wantBooks(t, runJob(t, jobs, spec), 60, 0, 0)
	other := spec
	other.Prepend, other.Prefix = "y/", "k5"
	wantBooks(t, runJob(t, jobs, other), 10, 0, 0)
	n := tc.nodes[1]
	to, err := n.Objects().Bucket(t.Context(), "copy")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"x/k00a", "x/zzz", "x/k59"} { // the last one over a copy
		if _, err := n.Objects().Put(t.Context(), to, key, strings.NewReader("mine"), core.PutOptions{Size: 4}); err != nil {
			t.Fatal(err)
		}
	}
	for i := 20; i < 60; i += 2 {
		f.unset(fmt.Sprintf("k%02d", i))
		delete(want, fmt.Sprintf("k%02d", i))
	}
	f.unset("k59")
	delete(want, "k59")
	f.set("k01", []byte("changed"))
	want["k01"] = []byte("changed")
	spec.Sync = true
	wantBooks(t, runJob(t, jobs, spec), int64(len(want)), 0, 20)
	for key, data := range want {
		mustGet(t, n, to, "x/"+key, data)
	}
	left := 0
	n.ListAll(t.Context(), to, "", "", false, func(key string, rec *core.Record, err error) bool {
		left++
		return true
	})
	if left != len(want)+3+10 {
		t.Errorf("%d objects are at the destination, want %d", left, len(want)+3+10)
	}
	// What is gone went from the source's copies, too.
	if rec := present(t, n, from, "k20"); rec != nil {
		t.Error("a copy of what is gone is present")
	}
	// A remote without anything left.
	for key := range want {
		f.unset(key)
	}
	wantBooks(t, runJob(t, jobs, spec), 0, 0, int64(len(want)))
	for _, s := range []job.Spec{
		{Kind: job.KindCopy, From: "shoal://copy", To: "shoal://copy2", Sync: true},
		{Kind: job.KindCopy, From: "s3://remote", To: "shoal://copy", Sync: true, Ext: map[string]string{"a": "b"}},
		{Kind: job.KindEvict, From: "s3://remote", Latest: true},
	} {
		if j, err := jobs[0].Start(t.Context(), s); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%+v: got %+v, %v", s, j.Status, err)
		}
	}
}

// TestSyncToRemote: the same, to a remote; what others put there stays.
func TestSyncToRemote(t *testing.T) {
	_, f, _, jobs := startJobs(t, 3, nil)
	want := fill(f, 40, func(i int) string { return fmt.Sprintf("in/%02d", i) })
	f.set("out/in/05a", []byte("mine"))
	f.set("out/in/99", []byte("mine"))
	spec := job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", Prefix: "in/", Prepend: "out/", All: true}
	wantBooks(t, runJob(t, jobs, spec), 40, 0, 0)
	for i := range 15 {
		f.unset(fmt.Sprintf("in/%02d", i+10))
		delete(want, fmt.Sprintf("in/%02d", i+10))
	}
	spec.Sync = true
	wantBooks(t, runJob(t, jobs, spec), 25, 0, 15)
	f.mu.Lock()
	defer f.mu.Unlock()
	there := map[string]bool{}
	for key := range f.objects {
		if name, ok := strings.CutPrefix(key, "out/"); ok {
			there[name] = true
		}
	}
	for key := range want {
		if !there[key] {
			t.Errorf("%s is not at the destination", key)
		}
	}
	if len(there) != len(want)+2 {
		t.Errorf("at the destination: %v", slices.Sorted(maps.Keys(there)))
	}
}

// TestSyncPrefetch: a prefetch that follows deletions drops copies of what is gone; with
// names it asks for what is there now.
func TestSyncPrefetch(t *testing.T) {
	tc, f, b, jobs := startJobs(t, 3, nil)
	want := fill(f, 30, func(i int) string { return fmt.Sprintf("k%02d", i) })
	wantBooks(t, runJob(t, jobs, job.Spec{Kind: job.KindPrefetch, From: "s3://remote"}), 30, 0, 0)
	for _, key := range []string{"k00", "k15", "k29"} {
		f.unset(key)
		delete(want, key)
	}
	f.set("k03", []byte("changed"))
	f.set("k04", []byte("changed"))
	wantBooks(t, runJob(t, jobs, job.Spec{Kind: job.KindPrefetch, From: "s3://remote", List: []string{"k03", "k05"}}), 0, 2, 0)
	wantBooks(t, runJob(t, jobs, job.Spec{Kind: job.KindPrefetch, From: "s3://remote", List: []string{"k03", "k05", "k00"}, Latest: true}), 1, 2, 0)
	if present(t, tc.nodes[0], b, "k00") == nil {
		t.Error("--latest dropped the copy of what is gone")
	}
	wantBooks(t, runJob(t, jobs, job.Spec{Kind: job.KindPrefetch, From: "s3://remote", Sync: true}), 1, 26, 3)
	for _, key := range []string{"k00", "k15", "k29"} {
		if present(t, tc.nodes[0], b, key) != nil {
			t.Errorf("%s is present", key)
		}
	}
}

// TestLatestOfPresent: without --all a copy is over what is present, in the version
// that the remote has now. A remote that only seems not to have something makes
// nothing go.
func TestLatestOfPresent(t *testing.T) {
	tc, f, b, jobs := startJobs(t, 3, nil)
	want := fill(f, 20, func(i int) string { return fmt.Sprintf("k%02d", i) })
	n := tc.nodes[0]
	for i := range 10 {
		key := fmt.Sprintf("k%02d", i)
		mustGet(t, n, b, key, want[key])
		awaitPresent(t, n, b, key, int64(len(want[key])))
	}
	spec := job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "shoal://copy"}
	wantBooks(t, runJob(t, jobs, spec), 10, 0, 0)
	f.set("k01", []byte("changed"))
	f.unset("k02")
	wantBooks(t, runJob(t, jobs, spec), 10, 0, 0) // as they are here
	spec.Latest = true
	wantBooks(t, runJob(t, jobs, spec), 9, 1, 0)
	to, err := n.Objects().Bucket(t.Context(), "copy")
	if err != nil {
		t.Fatal(err)
	}
	mustGet(t, n, to, "k01", []byte("changed"))
	mustGet(t, n, to, "k02", want["k02"])
	spec.Sync = true
	f.answer(func(_ context.Context, op, key string) error {
		if op == "head" && key == "k05" {
			return fmt.Errorf("fake: the bucket is gone, and HEAD cannot say so: %w", core.ErrNotFound)
		}
		return nil
	})
	wantBooks(t, runJob(t, jobs, spec), 8, 1, 1)
	mustGet(t, n, to, "k05", want["k05"])
	if _, _, err := get(t, n, to, "k02", core.GetOptions{}); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("a copy of what is gone: %v", err)
	}
}

// TestVersionsChangeUnderJobs: what changes between the listing, or the question for the
// latest version, and the read is left and named, and done by the next pass; what comes
// back before it is removed stays.
func TestVersionsChangeUnderJobs(t *testing.T) {
	tc, f, b, jobs := startJobs(t, 3, nil)
	want := fill(f, 12, func(i int) string { return fmt.Sprintf("k%02d", i) })
	spec := job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "shoal://copy", All: true}
	wantBooks(t, runJob(t, jobs, spec), 12, 0, 0)
	n := tc.nodes[0]
	to, err := n.Objects().Bucket(t.Context(), "copy")
	if err != nil {
		t.Fatal(err)
	}
	// when has change done once, at the first such request about a key.
	when := func(op, key string, change func()) {
		var once sync.Once
		f.answer(func(_ context.Context, is, of string) error {
			if is == op && of == key {
				once.Do(change)
			}
			return nil
		})
	}
	noted := func(j job.Job, key, text string) {
		t.Helper()
		notes, _, err := jobs[0].Errors(t.Context(), j.Spec.ID, "", 0)
		if err != nil || len(notes) != 1 || notes[0].Key != key || !strings.Contains(notes[0].Message, text) {
			t.Errorf("got the notes %+v, %v; want %q of %s", notes, err, text, key)
		}
	}
	spec.Sync = true
	t.Run("replaced after the listing", func(t *testing.T) {
		f.set("k03", []byte("second"))
		when("get", "k03", func() { f.set("k03", []byte("third")) })
		j := runJob(t, jobs, spec)
		wantBooks(t, j, 11, 1, 0)
		noted(j, "k03", "replaced")
		mustGet(t, n, to, "k03", want["k03"])
		wantBooks(t, runJob(t, jobs, spec), 12, 0, 0)
		mustGet(t, n, to, "k03", []byte("third"))
	})
	t.Run("removed after the listing", func(t *testing.T) {
		f.set("k04", []byte("second"))
		when("get", "k04", func() { f.unset("k04") })
		j := runJob(t, jobs, spec)
		wantBooks(t, j, 11, 1, 0)
		noted(j, "k04", "removed")
		mustGet(t, n, to, "k04", want["k04"]) // this pass was told that it is there
		wantBooks(t, runJob(t, jobs, spec), 11, 0, 1)
		if _, _, err := get(t, n, to, "k04", core.GetOptions{}); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("k04: %v", err)
		}
	})
	t.Run("back before it is removed", func(t *testing.T) {
		f.unset("k05")
		when("head", "k05", func() { f.set("k05", []byte("back")) })
		wantBooks(t, runJob(t, jobs, spec), 11, 0, 0)
		mustGet(t, n, to, "k05", []byte("back"))
	})
	t.Run("replaced after the question", func(t *testing.T) {
		named := job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "shoal://copy", List: []string{"k06"}, Latest: true}
		f.set("k06", []byte("second"))
		when("get", "k06", func() { f.set("k06", []byte("third")) })
		j := runJob(t, jobs, named)
		wantBooks(t, j, 0, 1, 0)
		noted(j, "k06", "replaced")
		mustGet(t, n, to, "k06", want["k06"])
		wantBooks(t, runJob(t, jobs, named), 1, 0, 0)
		mustGet(t, n, to, "k06", []byte("third"))
	})
	t.Run("replaced under a prefetch", func(t *testing.T) {
		f.set("k07", []byte("second"))
		when("get", "k07", func() { f.set("k07", []byte("third")) })
		j := runJob(t, jobs, job.Spec{Kind: job.KindPrefetch, From: "s3://remote", List: []string{"k07"}, Latest: true})
		wantBooks(t, j, 0, 1, 0)
		f.answer(nil)
		mustGet(t, n, b, "k07", []byte("third"))
	})
	t.Run("the copy is replaced before it is removed", func(t *testing.T) {
		out := job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", Prefix: "k0", Prepend: "out/", All: true, Sync: true}
		wantBooks(t, runJob(t, jobs, out), 9, 0, 0)
		f.unset("k08")
		when("delete", "out/k08", func() { f.set("out/k08", []byte("another's")) })
		j := runJob(t, jobs, out)
		if j.Status.State != job.Done || j.Status.Books.Dropped.Objects != 0 || string(f.data("out/k08")) != "another's" {
			t.Errorf("%s, %+v; at the destination is %q", j.Status.State, j.Status.Books, f.data("out/k08"))
		}
	})
}
