package nodeserver

import (
	"context"
	"errors"
	"fmt"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/job"
	"github.com/shoalstore/shoal/plugins/api"
)

// prepareRemotes takes the remote buckets that a job names into use, and refuses
// what cannot be done with them.
func (j jobService) prepareRemotes(ctx context.Context, in *api.JobSpec, spec *job.Spec) error {
	from, err := remoteOf(in.From)
	if err != nil {
		return err
	}
	to, err := remoteOf(in.To)
	if err != nil {
		return err
	}
	if spec.Kind != job.KindCopy && (spec.Kind != job.KindETL || spec.Inspect) {
		if from != nil {
			_, err = bucketService(j).use(ctx, from.Bucket)
		}
		return err
	}
	if from != nil {
		if spec.Prefix == "" {
			spec.Prefix = from.Key
		}
		if !in.All {
			err = j.mustHaveSome(ctx, from.Bucket, spec)
		} else {
			_, err = bucketService(j).use(ctx, from.Bucket)
		}
		if err != nil {
			return err
		}
	}
	if to != nil {
		return j.prepareDestination(ctx, to.Bucket, in.Create, in.DryRun)
	}
	return nil
}

// remoteOf reads a URI and returns it if it is of a remote bucket.
func remoteOf(uri string) (*core.URI, error) {
	if uri == "" {
		return nil, nil //nolint:nilnil // no bucket is no error
	}
	u, err := core.ParseURI(uri)
	if err != nil || !u.Bucket.Remote() {
		return nil, err
	}
	return &u, nil
}

// mustHaveSome refuses a job over what is present of a bucket if that is nothing
// of what there is.
func (j jobService) mustHaveSome(ctx context.Context, name core.BucketName, spec *job.Spec) error {
	takes, err := spec.Selects()
	if err != nil {
		return err
	}
	x, err := bucketService(j).use(ctx, name)
	if err != nil {
		return err
	}
	some := false
	j.s.node.ListAll(ctx, x, spec.Prefix, "", true, func(key string, _ *core.Record, e error) bool {
		err = e
		some = e == nil && takes(key)
		return e == nil && !some
	})
	if some || err != nil {
		return err
	}
	n, more, err := j.s.countRemote(ctx, x, spec.Prefix, takes)
	switch {
	case err != nil:
		return remoteError(name, err)
	case n == 0 && !more:
		return nil // nothing is asked for, and nothing will be done
	case more:
		return api.Refused(fmt.Sprintf("0 of more than %d objects are present; use --all", n), "")
	}
	return api.Refused(fmt.Sprintf("0 of %d objects are present; use --all", n), "")
}

// countPages bounds how many requests a refusal may cost.
const countPages = 100

// countRemote counts the keys of a remote bucket that a job takes; more says
// that it has not seen them all.
func (s *server) countRemote(ctx context.Context, x core.Bucket, prefix string, takes func(string) bool) (n int, more bool, err error) {
	k, err := s.backend(x.Name, x.Remote)
	if err != nil {
		return 0, false, err
	}
	after := ""
	for range countPages {
		page, err := listRemote(ctx, k, x, core.RemoteListOptions{Prefix: prefix, After: after})
		if err != nil {
			return n, false, err
		}
		for i := range page.Objects {
			if takes(page.Objects[i].Key) {
				n++
			}
		}
		if !page.More {
			return n, false, nil
		}
		after = page.Next
	}
	return n, true, nil
}

// prepareDestination takes the remote destination of a copy into use, or makes it
// if that is asked for; a dry run makes nothing.
func (j jobService) prepareDestination(ctx context.Context, name core.BucketName, create, dry bool) error {
	b := bucketService(j)
	_, err := b.use(ctx, name)
	if !errors.Is(err, core.ErrNoSuchBucket) {
		return err
	}
	if !create {
		if e, ok := errors.AsType[*api.Error](err); ok {
			e.Hint = "add --create to make it"
		}
		return err
	}
	if dry {
		return nil
	}
	_, err = b.CreateBucket(ctx, name, api.CreateBucket{Create: true, IfAbsent: true})
	return err
}
