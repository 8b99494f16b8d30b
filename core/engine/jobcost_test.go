package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/job"
	"github.com/shoalstore/shoal/core/remote"
)

// TestJobCost: a job shows what it has asked of remotes, whichever nodes did, and
// that does not count what others ask.
func TestJobCost(t *testing.T) {
	_, f, _, jobs := startJobs(t, 3, func(o *engine.Options) {
		opened := o.Remote
		o.Remote = func(b core.BucketName, s core.RemoteSettings) (core.Backend, error) {
			k, err := opened(b, s)
			if err != nil {
				return nil, err
			}
			return remote.NewClient(k, remote.ClientOptions{Name: "test", Clock: clock{time.Now()}}), nil
		}
	})
	var bytes int64
	for _, data := range fill(f, 120, func(i int) string { return fmt.Sprintf("in/%03d", i) }) {
		bytes += int64(len(data))
	}
	for _, c := range []struct {
		name    string
		spec    job.Spec
		in, out int64
	}{
		{"copy", job.Spec{Kind: job.KindCopy, To: "s3://remote", Prepend: "out/", All: true}, bytes, bytes},
		{"prefetch", job.Spec{Kind: job.KindPrefetch}, 0, 0},
	} {
		f.reset()
		c.spec.From, c.spec.Prefix = "s3://remote", "in/"
		j, err := jobs[0].Start(t.Context(), c.spec)
		if err != nil {
			t.Fatal(err)
		}
		id := j.Spec.ID
		finish(t, jobs[1], id)
		waitFor(t, "the cost of "+c.name, func() error {
			j, err := jobs[1].Get(t.Context(), id)
			got, want := j.Cloud, job.Cloud{Requests: int64(f.count()), BytesIn: c.in, BytesOut: c.out}
			if err == nil && (j.Status.State != job.Done || got != want) {
				err = fmt.Errorf("job %s: got %+v, want %+v", j.Status.State, got, want)
			}
			return err
		})
	}
}
