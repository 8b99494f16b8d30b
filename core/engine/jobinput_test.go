package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/job"
)

// TestCopyOntoItself: a copy that would write over what it reads, or find what it
// wrote, is refused before anything begins; of single keys it is left out.
func TestCopyOntoItself(t *testing.T) {
	_, f, _, jobs := startJobs(t, 3, nil)
	fill(f, 20, func(i int) string { return fmt.Sprintf("in/%02d.%s", i, []string{"jpg", "txt"}[i%2]) })
	for want, spec := range map[string]job.Spec{
		"are the same":          {},
		"holds the destination": {Prefix: "in/", Prepend: "in/copies/"},
		"without end":           {Prepend: "copies/"},
	} {
		spec.Kind, spec.From, spec.To, spec.All = job.KindCopy, "s3://remote", "s3://remote", true
		if _, err := jobs[0].Start(t.Context(), spec); !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", spec, err, want)
		}
	}
	j, err := jobs[0].Start(t.Context(), job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", All: true, Prefix: "in/", Ext: map[string]string{"jpg": "png"}})
	if err != nil {
		t.Fatal(err)
	}
	j = finish(t, jobs[0], j.Spec.ID)
	// What is written may be found as well: it is a .png, which stays where it is.
	if b := j.Status.Books; j.Status.State != job.Done || b.Done.Objects != 10 || b.Skipped.Objects < 10 {
		t.Errorf("got %+v", j.Status)
	}
	errs := allErrors(t, jobs[0], j.Spec.ID, 100)
	if len(errs) < 10 || errs[0].Message != "it would be copied onto itself" {
		t.Errorf("got %+v", errs)
	}
}

// TestOverlappingCopies: of two jobs that write the same keys at the same time each
// says what it did, and what it wrote and the other wrote again; the destination is
// right.
func TestOverlappingCopies(t *testing.T) {
	const objects = 200
	_, f, _, jobs := startJobs(t, 3, nil)
	want := fill(f, objects, func(i int) string { return fmt.Sprintf("in/%03d", i) })
	var ids []string
	for i := range 2 {
		j, err := jobs[i].Start(t.Context(), job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", Prefix: "in/", Prepend: "out/", All: true})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, j.Spec.ID)
	}
	for _, id := range ids {
		j := finish(t, jobs[2], id)
		b := j.Status.Books
		overwritten := j.Status.State == job.Failed && strings.Contains(j.Status.Message, "overwritten or deleted by somebody else")
		if j.Status.State != job.Done && !overwritten || b.Done.Add(b.Skipped).Objects != objects || b.Planned.Objects != objects {
			t.Errorf("got %+v", j.Status)
		}
		t.Logf("%s: done %d, skipped %d: %s", j.Status.State, b.Done.Objects, b.Skipped.Objects, j.Status.Message)
		for _, e := range allErrors(t, jobs[2], id, 1000) {
			if !strings.Contains(e.Message, "somebody else since the job began") {
				t.Errorf("got %+v", e)
			}
		}
	}
	for key, data := range want {
		if got := f.data("out/" + key); string(got) != string(data) {
			t.Errorf("%s: %d bytes of %d", key, len(got), len(data))
		}
	}
}

// TestCopyBucketVanishes: a source or destination that is gone half-way ends the job,
// which says so, and its books are those of what was done.
func TestCopyBucketVanishes(t *testing.T) {
	for name, ops := range map[string]string{"source": "get list", "destination": "put"} {
		t.Run(name, func(t *testing.T) {
			_, f, _, jobs := startJobs(t, 3, nil)
			fill(f, 200, func(i int) string { return fmt.Sprintf("in/%03d", i) })
			var puts atomic.Int64
			f.answer(func(_ context.Context, op, _ string) error {
				if op == "put" {
					puts.Add(1)
				}
				if puts.Load() > 60 && strings.Contains(ops, op) {
					return fmt.Errorf("the bucket was removed: %w", core.ErrNoSuchBucket)
				}
				return nil
			})
			j, err := jobs[0].Start(t.Context(), job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", Prefix: "in/", Prepend: "out/", All: true})
			if err != nil {
				t.Fatal(err)
			}
			j = finish(t, jobs[1], j.Spec.ID)
			b := j.Status.Books
			if j.Status.State != job.Failed || !strings.Contains(j.Status.Message, "the bucket was removed") || b.Failed.Objects == 0 || b.Done.Objects > 80 {
				t.Errorf("got %+v", j.Status)
			}
			if errs := allErrors(t, jobs[1], j.Spec.ID, 100); len(errs) == 0 || errs[0].Code != "no_such_bucket" {
				t.Errorf("got %+v", errs)
			}
		})
	}
}

// TestCopyGrowingSource: a source to which others add keys behind what was listed,
// over and over, keeps a job going, with what was found so far; it can be stopped, and
// started again when the source is at rest.
func TestCopyGrowingSource(t *testing.T) {
	_, f, _, jobs := startJobs(t, 3, nil)
	fill(f, 50, func(i int) string { return fmt.Sprintf("in/%09d", i) })
	var grows atomic.Bool
	var last atomic.Int64
	grows.Store(true)
	f.answer(func(_ context.Context, op, _ string) error {
		if op == "list" && grows.Load() {
			for range 1100 { // more than a page
				f.set(fmt.Sprintf("in/%09d", 1000+last.Add(1)), []byte("x"))
			}
		}
		return nil
	})
	spec := job.Spec{Kind: job.KindPrefetch, From: "s3://remote", Prefix: "in/"}
	j, err := jobs[0].Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the job to find more and more", func() error {
		j, err := jobs[1].Get(t.Context(), j.Spec.ID)
		if err == nil && (j.Status.Books.Planned.Objects < 2500 || j.Status.Planned != nil) {
			err = fmt.Errorf("found %d so far, planned %v, %s", j.Status.Books.Planned.Objects, j.Status.Planned, j.Status.State)
		}
		return err
	})
	if j, err = jobs[1].Stop(t.Context(), j.Spec.ID); err != nil || j.Status.State != job.Stopped || j.Status.Books.Failed.Objects != 0 {
		t.Fatalf("got %+v, %v", j.Status, err)
	}
	grows.Store(false)
	spec.Prefix = "in/00000000"
	if j, err = jobs[2].Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	j = finish(t, jobs[2], j.Spec.ID)
	if b := j.Status.Books; j.Status.State != job.Done || b.Done.Add(b.Skipped).Objects != b.Planned.Objects || b.Planned.Objects < 10 {
		t.Errorf("got %+v", j.Status)
	}
}

// TestCopyStoppedAndStartedAgain: a copy that was stopped is done by the next one.
func TestCopyStoppedAndStartedAgain(t *testing.T) {
	const objects = 150
	_, f, _, jobs := startJobs(t, 3, nil)
	want := fill(f, objects, func(i int) string { return fmt.Sprintf("in/%03d", i) })
	var puts atomic.Int64
	half := make(chan struct{})
	f.answer(func(_ context.Context, op, _ string) error {
		if op == "put" && puts.Add(1) == objects/2 {
			close(half)
		}
		return nil
	})
	spec := job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", Prefix: "in/", Prepend: "out/", All: true, ObjectRate: 60}
	j, err := jobs[0].Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	<-half
	if j, err = jobs[1].Stop(t.Context(), j.Spec.ID); err != nil || j.Status.State != job.Stopped || j.Status.Books.Done.Objects >= objects {
		t.Fatalf("got %+v, %v", j.Status, err)
	}
	spec.ObjectRate = 0
	if j, err = jobs[2].Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	j = finish(t, jobs[2], j.Spec.ID)
	if b := j.Status.Books; j.Status.State != job.Done || b.Done.Add(b.Skipped).Objects != objects {
		t.Errorf("got %+v", j.Status)
	}
	for key, data := range want {
		if got := f.data("out/" + key); string(got) != string(data) {
			t.Errorf("%s: %d bytes of %d", key, len(got), len(data))
		}
	}
}
