package nodeserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
	"github.com/shoalstore/shoal/plugins/api"
)

// A first request to a remote bucket is repeated for so long if it fails for what
// may pass, and may take so long in all: somebody waits for it.
const (
	accessTries    = 3 * time.Second
	accessPatience = 10 * time.Second
)

// backend returns what speaks to the remote of a bucket.
func (s *server) backend(name core.BucketName, set core.RemoteSettings) (core.Backend, error) {
	if s.remotes == nil {
		return nil, fmt.Errorf("%s: buckets of %s://: %w", name, name.Provider, errors.ErrUnsupported)
	}
	return s.remotes(name, set)
}

// remoteName is the bucket's name at its remote.
func remoteName(name core.BucketName, set core.RemoteSettings) string {
	if set.Name != "" {
		return set.Name
	}
	return name.Name
}

// reach asks whether a remote bucket is accessible and returns the settings with
// which it is: those given or, where they say nothing, those of the one account
// that can reach it. With create it is made if it is not there.
func (s *server) reach(ctx context.Context, name core.BucketName, set core.RemoteSettings, create bool) (core.RemoteSettings, error) {
	err := s.head(ctx, name, set, accessTries)
	if err == nil {
		return set, nil
	}
	if set == (core.RemoteSettings{}) && (errors.Is(err, core.ErrNoSuchBucket) || errors.Is(err, core.ErrPermission)) {
		found := s.accountsWith(ctx, name)
		switch {
		case len(found) == 1:
			return core.RemoteSettings{Account: found[0]}, nil
		case len(found) > 1:
			return set, api.Refused(fmt.Sprintf("%s: there is one at each of the accounts %v", name, found),
				fmt.Sprintf("choose: shoal bucket create %s --props account=%s", name, found[0]))
		}
	}
	if create && errors.Is(err, core.ErrNoSuchBucket) {
		err = s.makeBucket(ctx, name, set)
	}
	if err != nil {
		return set, remoteError(name, err)
	}
	return set, nil
}

// head asks whether a bucket is accessible, again for so long if that may help.
func (s *server) head(ctx context.Context, name core.BucketName, set core.RemoteSettings, tries time.Duration) error {
	k, err := s.backend(name, set)
	if err != nil {
		return err
	}
	ctx, cancel := firstAccess(ctx, tries)
	defer cancel()
	err = k.HeadBucket(ctx, remoteName(name, set))
	if err == nil || errors.Is(err, core.ErrNoSuchBucket) || k.Abilities().NoList {
		return err
	}
	// The answer to HEAD has no words that say why; that to a listing has.
	_, said := k.List(remote.WithPatience(ctx, 0), remoteName(name, set), core.RemoteListOptions{Max: 1})
	if said != nil && ctx.Err() != nil {
		return err
	}
	return said
}

// firstAccess bounds a request that tells whether a bucket is accessible.
func firstAccess(ctx context.Context, tries time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(remote.WithPatience(ctx, tries), accessPatience, errNoAnswer)
}

// withPatience bounds another request that somebody waits for.
func withPatience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(remote.WithPatience(ctx, accessPatience), 3*accessPatience, errNoAnswer)
}

// errNoAnswer ends the wait for a remote.
var errNoAnswer = fmt.Errorf("no answer in time: %w", core.ErrUnavailable)

// accountsWith are the named accounts that can reach the bucket, by name.
func (s *server) accountsWith(ctx context.Context, name core.BucketName) []string {
	var mu sync.Mutex
	var out []string
	var wg sync.WaitGroup
	for _, account := range s.accounts(name.Provider) {
		if account == "" {
			continue
		}
		wg.Go(func() {
			if s.head(ctx, name, core.RemoteSettings{Account: account}, 0) == nil {
				mu.Lock()
				defer mu.Unlock()
				out = append(out, account)
			}
		})
	}
	wg.Wait()
	slices.Sort(out)
	return out
}

// accounts are the names of a provider's accounts in the configuration, "" for
// the unnamed one.
func (s *server) accounts(p core.Provider) []string {
	out := []string{""}
	switch p {
	case core.S3:
		out = append(out, slices.Sorted(maps.Keys(s.cfg.Backends.S3.Accounts))...)
	case core.GCS:
		out = append(out, slices.Sorted(maps.Keys(s.cfg.Backends.GS.Accounts))...)
	}
	return out
}

func (s *server) makeBucket(ctx context.Context, name core.BucketName, set core.RemoteSettings) error {
	k, err := s.backend(name, set)
	if err != nil {
		return err
	}
	maker, ok := k.(core.RemoteBucketMaker)
	if !ok {
		return fmt.Errorf("buckets of %s:// cannot be created from here: %w", name.Provider, errors.ErrUnsupported)
	}
	ctx, cancel := withPatience(ctx)
	defer cancel()
	return maker.CreateBucket(ctx, remoteName(name, set))
}

// remoteError puts into users' words why a remote bucket cannot be used. What
// the remote itself said ends the message.
func remoteError(name core.BucketName, err error) error {
	e := &api.Error{Message: fmt.Sprintf("%s: %v", name, err)}
	switch {
	case errors.Is(err, core.ErrNoSuchBucket):
		e.Code = api.CodeNoSuchBucket
		e.Message = fmt.Sprintf("%s: no such bucket at the remote: %v", name, err)
		if name.Provider == core.S3 || name.Provider == core.GCS {
			e.Hint = fmt.Sprintf("is the endpoint right (backends.%s in the servers' configuration)? to make the bucket: shoal bucket create %s --create", name.Provider, name)
		}
	case errors.Is(err, core.ErrPermission) && (name.Provider == core.HTTP || name.Provider == core.HTTPS):
		e.Code = api.CodeForbidden
		e.Message = fmt.Sprintf("%s: access is denied: %v", name, err)
		e.Hint = "which origins the servers ask says backends.http.allow in their configuration"
	case errors.Is(err, core.ErrPermission):
		e.Code = api.CodeForbidden
		e.Message = fmt.Sprintf("%s: the remote refuses the cluster's credentials: %v", name, err)
		e.Hint = fmt.Sprintf("the credentials are those of the servers: backends.%s in their configuration, or their environment", name.Provider)
	case errors.Is(err, core.ErrWrongRegion):
		e.Code = api.CodeWrongRegion
		e.Message = fmt.Sprintf("%s: asked in the wrong region: %v", name, err)
		e.Hint = fmt.Sprintf("shoal bucket create %s --props region=REGION", name)
	case errors.Is(err, core.ErrThrottled):
		e.Code = api.CodeThrottled
		e.Message = fmt.Sprintf("%s: the remote asks for fewer requests: %v", name, err)
	case errors.Is(err, core.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		e.Code = api.CodeRemote
		e.Message = fmt.Sprintf("%s: the remote is not available: %v", name, err)
	default:
		return fmt.Errorf("%s: %w", name, err)
	}
	return e
}

// listRemote lists a page. A remote that does not answer in time is told of
// rather than waited for.
func listRemote(ctx context.Context, k core.Backend, x core.Bucket, o core.RemoteListOptions) (core.RemoteListing, error) {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	if o.Max == 0 {
		o.Max = max(k.Abilities().PageSize, 1)
	}
	return k.List(ctx, remoteName(x.Name, x.Remote), o)
}

// accountList is what one account may list.
type accountList struct {
	buckets []core.BucketName
	err     *api.Error
}

// listAccounts asks all accounts of a provider, of all for "", for the buckets
// that they may list.
func (s *server) listAccounts(ctx context.Context, provider core.Provider) []accountList {
	type account struct {
		provider core.Provider
		name     string
	}
	var accounts []account
	for _, p := range []core.Provider{core.S3, core.GCS, core.File} {
		if provider == "" || provider == p {
			for _, name := range s.accounts(p) {
				accounts = append(accounts, account{p, name})
			}
		}
	}
	out := make([]accountList, len(accounts))
	var wg sync.WaitGroup
	for i, a := range accounts {
		wg.Go(func() {
			names, err := s.listAccount(ctx, a.provider, core.RemoteSettings{Account: a.name})
			for _, name := range names {
				if b := (core.BucketName{Provider: a.provider, Name: name}); b.Validate() == nil {
					out[i].buckets = append(out[i].buckets, b)
				}
			}
			if err != nil {
				what := fmt.Sprintf("list the buckets of %s://", a.provider)
				if a.name != "" {
					what += " of the account " + a.name
				}
				out[i].err = accountError(what, err)
			}
		})
	}
	wg.Wait()
	return out
}

// accountError is remoteError for an account.
func accountError(what string, err error) *api.Error {
	e := api.FromError(err)
	out := &api.Error{Code: e.Code, Message: what + ": " + err.Error(), Hint: e.Hint}
	if out.Code == api.CodeUnavailable {
		out.Code = api.CodeRemote
	}
	return out
}

func (s *server) listAccount(ctx context.Context, p core.Provider, set core.RemoteSettings) ([]string, error) {
	k, err := s.backend(core.BucketName{Provider: p}, set)
	if err != nil {
		return nil, err
	}
	ctx, cancel := firstAccess(ctx, accessTries)
	defer cancel()
	return k.Buckets(ctx)
}
