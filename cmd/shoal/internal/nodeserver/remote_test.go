package nodeserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// cloud is a remote in memory: accounts with buckets, and what it answers.
type cloud struct {
	core.Backend // of what is not used here
	buckets      map[string]bool
	err, list    error
}

func (c *cloud) HeadBucket(_ context.Context, name string) error {
	switch {
	case c.err != nil:
		return c.err
	case !c.buckets[name]:
		return fmt.Errorf("HEAD %s: %w", name, core.ErrNoSuchBucket)
	}
	return nil
}

func (*cloud) Abilities() core.RemoteAbilities { return core.RemoteAbilities{} }

// List says more than HEAD does.
func (c *cloud) List(context.Context, string, core.RemoteListOptions) (core.RemoteListing, error) {
	if c.list != nil {
		return core.RemoteListing{}, c.list
	}
	return core.RemoteListing{}, c.err
}

func (c *cloud) Buckets(context.Context) (out []string, err error) {
	for b := range c.buckets {
		out = append(out, b)
	}
	return out, c.err
}

// maker is a cloud that can make buckets.
type maker struct{ *cloud }

func (m maker) CreateBucket(_ context.Context, name string) error {
	m.buckets[name] = true
	return nil
}

// serverOf is a server with accounts at S3.
func serverOf(accounts map[string]core.Backend) *server {
	s := &server{remotes: func(_ core.BucketName, set core.RemoteSettings) (core.Backend, error) {
		b := accounts[set.Account]
		if b == nil {
			return nil, fmt.Errorf("account %q: %w", set.Account, core.ErrInvalid)
		}
		return b, nil
	}}
	s.cfg.Backends.S3.Accounts = map[string]config.S3Account{}
	for name := range accounts {
		if name != "" {
			s.cfg.Backends.S3.Accounts[name] = config.S3Account{}
		}
	}
	return s
}

func has(buckets ...string) *cloud {
	c := &cloud{buckets: map[string]bool{}}
	for _, b := range buckets {
		c.buckets[b] = true
	}
	return c
}

func TestReach(t *testing.T) {
	accounts := map[string]core.Backend{
		"": maker{has("own", "both")}, "a": has("far", "both", "twice"), "b": has("twice"), "down": &cloud{err: core.ErrUnavailable},
		"away": &cloud{err: core.ErrInvalid, list: fmt.Errorf("expecting eu-west-1: %w", core.ErrWrongRegion)},
	}
	s := serverOf(accounts)
	far := core.RemoteSettings{Account: "a"}
	for _, v := range []struct {
		name   string
		set    core.RemoteSettings
		create bool
		want   core.RemoteSettings
		err    error
		says   string
	}{
		{"own", core.RemoteSettings{}, false, core.RemoteSettings{}, nil, ""},
		{"both", core.RemoteSettings{}, false, core.RemoteSettings{}, nil, ""},
		{"far", core.RemoteSettings{}, false, far, nil, ""},
		{"far", far, false, far, nil, ""},
		{"far", core.RemoteSettings{Account: "b"}, false, core.RemoteSettings{}, core.ErrNoSuchBucket, "s3://far: no such bucket at the remote"},
		{"alias", core.RemoteSettings{Account: "a", Name: "far"}, false, core.RemoteSettings{Account: "a", Name: "far"}, nil, ""},
		{"twice", core.RemoteSettings{}, false, core.RemoteSettings{}, nil, "at each of the accounts [a b]"},
		{"none", core.RemoteSettings{}, false, core.RemoteSettings{}, core.ErrNoSuchBucket, "no such bucket at the remote"},
		{"new", core.RemoteSettings{}, true, core.RemoteSettings{}, nil, ""},
		{"new", far, true, far, errors.ErrUnsupported, "cannot be created"},
		{"own", core.RemoteSettings{Account: "away"}, false, core.RemoteSettings{}, core.ErrWrongRegion, "expecting eu-west-1"},
		{"own", core.RemoteSettings{Account: "down"}, false, core.RemoteSettings{}, core.ErrUnavailable, "not available"},
	} {
		got, err := s.reach(t.Context(), core.BucketName{Provider: core.S3, Name: v.name}, v.set, v.create)
		if v.says == "" {
			if err != nil || got != v.want {
				t.Errorf("%s %+v: got %+v, %v; want %+v", v.name, v.set, got, err, v.want)
			}
			continue
		}
		if err == nil || v.err != nil && !errors.Is(err, v.err) || !strings.Contains(err.Error(), v.says) {
			t.Errorf("%s %+v: got %v, want %v saying %q", v.name, v.set, err, v.err, v.says)
		}
	}
	if !accounts[""].(maker).buckets["new"] {
		t.Error("the bucket was not made")
	}
	if accounts["a"].(*cloud).buckets["new"] {
		t.Error("a bucket was made at another account")
	}
}

func TestRemoteErrors(t *testing.T) {
	name := core.BucketName{Provider: core.S3, Name: "far"}
	for _, v := range []struct {
		err  error
		code api.Code
	}{
		{core.ErrNoSuchBucket, api.CodeNoSuchBucket},
		{core.ErrPermission, api.CodeForbidden},
		{core.ErrWrongRegion, api.CodeWrongRegion},
		{core.ErrThrottled, api.CodeThrottled},
		{core.ErrUnavailable, api.CodeRemote},
		{fmt.Errorf("throttled for too long: %w: %w", core.ErrThrottled, context.DeadlineExceeded), api.CodeThrottled},
		{context.DeadlineExceeded, api.CodeRemote},
		{errNoAnswer, api.CodeRemote},
		{core.ErrInvalid, api.CodeInvalid},
		{errors.ErrUnsupported, api.CodeNotBuilt},
	} {
		err := remoteError(name, fmt.Errorf("http://127.0.0.1:1: their words: %w", v.err))
		e := api.FromError(err)
		if e.Code != v.code || !strings.HasPrefix(err.Error(), "s3://far: ") || !strings.Contains(err.Error(), "http://127.0.0.1:1: their words") {
			t.Errorf("%v: got %s, %v; want %s", v.err, e.Code, err, v.code)
		}
	}
}

func TestListAccounts(t *testing.T) {
	s := serverOf(map[string]core.Backend{"": has("own", "No!"), "a": has("far"), "shut": &cloud{err: fmt.Errorf("AccessDenied: %w", core.ErrPermission)}})
	var names, refused []string
	for _, l := range s.listAccounts(t.Context(), core.S3) {
		for _, b := range l.buckets {
			names = append(names, b.String())
		}
		if l.err != nil {
			refused = append(refused, string(l.err.Code)+" "+l.err.Message)
		}
	}
	slices.Sort(names)
	if want := []string{"s3://far", "s3://own"}; !reflect.DeepEqual(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	if len(refused) != 1 || !strings.HasPrefix(refused[0], "forbidden list the buckets of s3:// of the account shut: AccessDenied") {
		t.Errorf("got %q", refused)
	}
	if got := s.listAccounts(t.Context(), core.HTTPS); len(got) != 0 {
		t.Errorf("origins have no lists of buckets: %v", got)
	}
}

func TestRemoteMeter(t *testing.T) {
	get, put := remoteKind{"s3", "get"}, remoteKind{"s3", "put"}
	now := map[remoteKind]remoteCount{}
	m := remoteMeter{counts: func() map[remoteKind]remoteCount {
		return maps.Clone(now)
	}}
	if got := m.performance(); got != nil {
		t.Errorf("before the first second: %v", got)
	}
	now[put] = remoteCount{requests: 7}
	for i := range 20 {
		now[get] = remoteCount{requests: int64(10 * i), errors: int64(i), throttled: int64(2 * i), bytesIn: int64(1000 * i), inFlight: 3}
		m.turn()
	}
	seconds := int64(window / time.Second)
	want := []api.RemotePerformance{{
		Backend: "s3", Op: "get", Count: 10 * seconds, Errors: seconds, Throttled: 2 * seconds, Rate: 10, BytesIn: 1000, InFlight: 3,
	}}
	got := m.performance()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	total := totalRemotes([]api.NodePerformance{{Remotes: got}, {}, {Remotes: got}})
	if len(total) != 1 || total[0].Count != 20*seconds || total[0].InFlight != 6 || total[0].Rate != 20 {
		t.Errorf("total %+v", total)
	}
}

// TestReadURI: a path of the servers' becomes a root and what is below it; a
// directory is told from a file, and nothing outside of the roots can be named.
func TestReadURI(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"set/a.jpg", "set/sub/b.jpg", "one"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := &server{log: slog.New(slog.DiscardHandler), clock: systemClock{}}
	s.cfg.Backends.File.Roots = map[string]string{"data": root}
	s.remotes = remotesOf(s.newPool(t.Context()))
	for uri, want := range map[string]string{
		"file://" + root:                    "file://data",
		"file://" + root + "/set":           "file://data/set/",
		"file://" + root + "/set/":          "file://data/set/",
		"file://" + root + "/set/sub":       "file://data/set/sub/",
		"file://" + root + "/set/a.jpg":     "file://data/set/a.jpg",
		"file://" + root + "/one":           "file://data/one",
		"file://" + root + "/not-there-yet": "file://data/not-there-yet",
		"file://data/set":                   "file://data/set",
		"s3://bucket/k":                     "s3://bucket/k",
	} {
		if u, err := s.readURI(t.Context(), uri); err != nil || u.String() != want {
			t.Errorf("%s: got %s, %v; want %s", uri, u, err, want)
		}
	}
	for _, uri := range []string{"file:///etc/passwd", "file://" + filepath.Dir(root), "file://" + root + "x/a"} {
		if u, err := s.readURI(t.Context(), uri); !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), "backends.file.roots") {
			t.Errorf("%s: got %s, %v", uri, u, err)
		}
	}
	in := api.JobSpec{From: "file://" + root + "/set", To: "file://" + root + "/out"}
	if err := s.resolveJob(t.Context(), &in); err != nil || in.From != "file://data/set/" || in.To != "file://data" || in.Prepend != "out/" {
		t.Errorf("a job: %+v, %v", in, err)
	}
}

// TestRemoteErrorOfOrigins: an origin that the servers may not ask refuses nobody's credentials.
func TestRemoteErrorOfOrigins(t *testing.T) {
	denied := fmt.Errorf("127.0.0.1 is not at a public address: %w", core.ErrPermission)
	for provider, want := range map[core.Provider]string{core.HTTP: "backends.http.allow", core.HTTPS: "backends.http.allow", core.S3: "credentials"} {
		var e *api.Error
		if err := remoteError(core.BucketName{Provider: provider, Name: "host"}, denied); !errors.As(err, &e) || e.Code != api.CodeForbidden || !strings.Contains(e.Hint, want) ||
			strings.Contains(e.Message, "credentials") != (provider == core.S3) {
			t.Errorf("%s: %v, hint %q", provider, err, e.Hint)
		}
	}
}
