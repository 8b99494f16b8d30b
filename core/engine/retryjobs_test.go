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

// allErrors reads what a job could not do, page by page.
func allErrors(t *testing.T, m *job.Manager, id string, page int) []job.Error {
	t.Helper()
	var out []job.Error
	after, more := "", true
	for more {
		var list []job.Error
		var err error
		if list, more, err = m.Errors(t.Context(), id, after, page); err != nil {
			t.Fatal(err)
		}
		if len(list) > page || more && len(list) == 0 {
			t.Fatalf("a page of %d errors, more %v", len(list), more)
		}
		for _, e := range list {
			if e.Key <= after {
				t.Fatalf("%q comes after %q", e.Key, after)
			}
			after = e.Key
		}
		out = append(out, list...)
	}
	return out
}

// TestJobRetry: every object that failed is named, however many, and a retry does
// those and no other.
func TestJobRetry(t *testing.T) {
	const objects = 400
	_, f, _, jobs := startJobs(t, 3, nil)
	want := fill(f, objects, func(i int) string { return fmt.Sprintf("in/%03d", i) })
	var broken atomic.Bool
	var puts atomic.Int64
	f.answer(func(_ context.Context, op, key string) error {
		if op != "put" {
			return nil
		}
		puts.Add(1)
		if broken.Load() && strings.Contains(key, "in/1") {
			return fmt.Errorf("not for you: %w", core.ErrPermission)
		}
		return nil
	})
	ctx := t.Context()
	prefetch, err := jobs[0].Start(ctx, job.Spec{Kind: job.KindPrefetch, From: "s3://remote", Prefix: "in/"})
	if err != nil {
		t.Fatal(err)
	}
	if j := finish(t, jobs[0], prefetch.Spec.ID); j.Status.Books.Done.Objects != objects {
		t.Fatalf("got %+v", j.Status)
	}
	if _, err := jobs[0].Retry(ctx, prefetch.Spec.ID, job.Spec{}); !errors.Is(err, core.ErrConflict) {
		t.Errorf("a retry of a job in which nothing failed: %v", err)
	}
	for name, all := range map[string]bool{"ranges": true, "slots": false} {
		out := name + "/"
		broken.Store(true)
		j, err := jobs[1].Start(ctx, job.Spec{
			Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", Prefix: "in/", Prepend: out, All: all, ContinueOnError: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		j = finish(t, jobs[1], j.Spec.ID)
		if b := j.Status.Books; j.Status.State != job.Failed || b.Failed.Objects != 100 || b.Done.Objects != objects-100 {
			t.Fatalf("%s: got %+v", name, j.Status)
		}
		errs := allErrors(t, jobs[2], j.Spec.ID, 7)
		for i, e := range errs {
			if e.Key != fmt.Sprintf("in/%03d", 100+i) || e.Code != "permission_denied" || !strings.Contains(e.Message, "not for you") {
				t.Errorf("%s: got %+v", name, e)
			}
		}
		if len(errs) != 100 {
			t.Errorf("%s: %d errors of 100", name, len(errs))
		}
		f.set("in/later", []byte("not part of it"))
		broken.Store(false)
		puts.Store(0)
		again, err := jobs[0].Retry(ctx, j.Spec.ID, job.Spec{Token: name})
		if err != nil {
			t.Fatal(err)
		}
		if same, err := jobs[1].Retry(ctx, j.Spec.ID, job.Spec{Token: name}); err != nil || same.Spec.ID != again.Spec.ID {
			t.Errorf("%s: the same retry is job %s, %v; want %s", name, same.Spec.ID, err, again.Spec.ID)
		}
		again = finish(t, jobs[0], again.Spec.ID)
		if b := again.Status.Books; again.Status.State != job.Done || b.Done.Objects != 100 || b.Planned != b.Done || puts.Load() != 100 {
			t.Errorf("%s: %d uploads by %+v", name, puts.Load(), again.Status)
		}
		for key, data := range want {
			if got := f.data(out + key); string(got) != string(data) {
				t.Errorf("%s: %s has %d bytes of %d", name, key, len(got), len(data))
			}
		}
		if _, err := jobs[0].Retry(ctx, again.Spec.ID, job.Spec{}); !errors.Is(err, core.ErrConflict) {
			t.Errorf("%s: a retry of a retry in which nothing failed: %v", name, err)
		}
		f.unset("in/later")
	}
}

// TestJobFailsAtFirstError: a job that ends with its first error names those that it
// counts.
func TestJobFailsAtFirstError(t *testing.T) {
	_, f, _, jobs := startJobs(t, 3, nil)
	fill(f, 300, func(i int) string { return fmt.Sprintf("in/%03d", i) })
	f.answer(func(_ context.Context, op, key string) error {
		if op == "put" && strings.HasSuffix(key, "7") {
			return fmt.Errorf("not for you: %w", core.ErrPermission)
		}
		return nil
	})
	j, err := jobs[0].Start(t.Context(), job.Spec{Kind: job.KindCopy, From: "s3://remote", To: "s3://remote", Prefix: "in/", Prepend: "out/", All: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jobs[0].Retry(t.Context(), j.Spec.ID, job.Spec{}); !errors.Is(err, core.ErrConflict) {
		t.Errorf("a retry of a job that runs: %v", err)
	}
	j = finish(t, jobs[0], j.Spec.ID)
	failed := j.Status.Books.Failed.Objects
	errs := allErrors(t, jobs[1], j.Spec.ID, 3)
	if j.Status.State != job.Failed || failed == 0 || int64(len(errs)) < failed {
		t.Errorf("%d errors of %+v", len(errs), j.Status)
	}
	for _, e := range errs {
		if !strings.HasSuffix(e.Key, "7") {
			t.Errorf("got %+v", e)
		}
	}
}
