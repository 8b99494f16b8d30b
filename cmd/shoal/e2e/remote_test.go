package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/cmd/shoal/internal/devcluster"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/placement"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
	"github.com/shoalstore/shoal/plugins/cloudtest"
	"github.com/shoalstore/shoal/plugins/s3gateway/oneshot"
)

// clouds is a cluster with an S3 server and a GCS server behind it, each behind
// a proxy.
type clouds struct {
	*cluster
	s3d, gcsd *cloudtest.Server
	s3p, gcsp *cloudtest.Proxy
	direct    *s3.Client // to the S3 server, past the proxy
	files     string     // the servers' directory that is the root "data"
}

// startClouds starts all of it. The accounts bad, away and dead of S3 have a
// wrong key, a wrong region, and an endpoint where nobody listens.
func startClouds(t *testing.T, nodes int, buckets ...string) *clouds {
	t.Helper()
	c := &clouds{
		files: t.TempDir(),
		s3d:   cloudtest.Serve(t, cloudtest.Options{Kind: cloudtest.S3, Buckets: buckets}),
		gcsd:  cloudtest.Serve(t, cloudtest.Options{Kind: cloudtest.GCS, Memory: true, Buckets: buckets}),
	}
	c.s3p, c.gcsp = cloudtest.ServeProxy(t, c.s3d), cloudtest.ServeProxy(t, c.gcsd)
	c.direct = oneshot.New(oneshot.Options{URL: c.s3d.URL(), AccessKey: c.s3d.AccessKey(), Secret: c.s3d.Secret(), Timeout: 30 * time.Second})
	account := func(name, key, value string) string {
		return "SHOAL_BACKENDS_S3_ACCOUNTS_" + name + "_" + key + "=" + value
	}
	c.cluster = startPlan(t, os.Getenv(binVar), devcluster.Plan{
		Nodes: nodes, Disks: 2,
		Backends: []devcluster.Backend{{Provider: "s3", URL: c.s3p.URL()}, {Provider: "gs", URL: c.gcsp.URL()}},
	},
		"AWS_ACCESS_KEY_ID="+c.s3d.AccessKey(), "AWS_SECRET_ACCESS_KEY="+c.s3d.Secret(), "AWS_REGION="+c.s3d.Region(), "AWS_EC2_METADATA_DISABLED=true", "SHOAL_BACKENDS_S3_CONDITIONS=true",
		account("BAD", "ENDPOINT", c.s3p.URL()), account("BAD", "ACCESS_KEY", c.s3d.AccessKey()), account("BAD", "SECRET_KEY", "not-the-secret"),
		account("BAD", "PATH_STYLE", "true"), account("BAD", "REGION", c.s3d.Region()),
		account("AWAY", "ENDPOINT", c.s3p.URL()), account("AWAY", "ACCESS_KEY", c.s3d.AccessKey()), account("AWAY", "SECRET_KEY", c.s3d.Secret()),
		account("AWAY", "PATH_STYLE", "true"), account("AWAY", "REGION", "eu-west-1"),
		account("DEAD", "ENDPOINT", "http://"+freeAddr(t)), account("DEAD", "ACCESS_KEY", "someone"), account("DEAD", "SECRET_KEY", "something"),
		account("DEAD", "PATH_STYLE", "true"), account("DEAD", "REGION", c.s3d.Region()),
		"SHOAL_BACKENDS_FILE_ROOTS=data:"+c.files,
	)
	return c
}

// seed writes an object to the S3 server, past cluster and proxy.
func (c *clouds) seed(bucket, key string, data []byte) {
	c.t.Helper()
	_, err := c.direct.PutObject(c.t.Context(), &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: bytes.NewReader(data), ContentType: aws.String("text/x-seed"), Metadata: map[string]string{"from": "seed"},
	})
	if err != nil {
		c.t.Fatalf("seed %s/%s: %v", bucket, key, err)
	}
}

// seedMany writes n small objects and returns their content by key.
func (c *clouds) seedMany(bucket, prefix string, n, size int) map[string][]byte {
	c.t.Helper()
	out := map[string][]byte{}
	for i := range n {
		out[fmt.Sprintf("%s%04d", prefix, i)] = fill(uint64(i+size), size)
	}
	g, ctx := errgroup.WithContext(c.t.Context())
	g.SetLimit(16)
	for key, data := range out {
		g.Go(func() error {
			_, err := c.direct.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(data)})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		c.t.Fatalf("seed: %v", err)
	}
	return out
}

// there is what the S3 server has under a key; nil if nothing.
func (c *clouds) there(bucket, key string) []byte {
	c.t.Helper()
	out, err := c.direct.GetObject(c.t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return nil
	}
	defer func() { _ = out.Body.Close() }()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// code runs a command that must end with an exit code, and returns its error
// output.
func (c *clouds) code(want int, args ...string) string {
	c.t.Helper()
	out, err := c.shoal("", args...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	}
	if got != want || err != nil && exit == nil {
		c.t.Errorf("shoal %s: exit code %d, want %d: %v\n%s", strings.Join(args, " "), got, want, err, out)
	}
	if err == nil {
		return out
	}
	return err.Error()
}

// quiet runs f, which must cost no request to a cloud.
func (c *clouds) quiet(what string, f func()) {
	c.t.Helper()
	before, gcsBefore := c.s3p.Counts(), c.gcsp.Counts()
	f()
	if d := c.s3p.Counts().Sub(before); d.Of().Requests != 0 {
		c.t.Errorf("%s cost requests to S3: %+v", what, d.ByOp)
	}
	if d := c.gcsp.Counts().Sub(gcsBefore); d.Of().Requests != 0 {
		c.t.Errorf("%s cost requests to GCS: %+v", what, d.ByOp)
	}
}

// cost runs f and returns what it cost at S3.
func (c *clouds) cost(f func()) cloudtest.Counts {
	before := c.s3p.Counts()
	f()
	return c.s3p.Counts().Sub(before)
}

// cached is the column of an object: yes, no, part, or "" if it is not listed.
func (c *clouds) cached(uri string) string {
	c.t.Helper()
	for line := range strings.Lines(c.must("ls", uri, "--json")) {
		var o api.Object
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			c.t.Fatal(err)
		}
		switch {
		case !strings.HasSuffix(uri, "/"+o.Name):
		case o.Part:
			return "part"
		case o.Cached:
			return "yes"
		default:
			return "no"
		}
	}
	return ""
}

// wantCat reads an object through the command line.
func (c *clouds) wantCat(want []byte, args ...string) {
	c.t.Helper()
	got, err := c.shoal("", append([]string{"cat"}, args...)...)
	if err != nil || got != string(want) {
		c.t.Errorf("cat %v: got %d bytes, %v; want %d", args, len(got), err, len(want))
	}
}

func (c *clouds) wantColumn(want string, uris ...string) {
	c.t.Helper()
	for _, uri := range uris {
		// A reader has the last bytes before they are stored.
		poll(c.t, 10*time.Second, uri, func(context.Context) error {
			if got := c.cached(uri); got != want {
				return fmt.Errorf("CACHED is %q, want %q", got, want)
			}
			return nil
		})
	}
}

func (c *clouds) has(text string, all ...string) {
	c.t.Helper()
	for _, s := range all {
		if !strings.Contains(text, s) {
			c.t.Errorf("lacks %q:\n%s", s, text)
		}
	}
}

// keyOwned is a key that begins so and whose slot the node owns.
func (c *clouds) keyOwned(name core.BucketName, prefix, node string) string {
	c.t.Helper()
	m, err := c.client("").Map(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	b := m.BucketNamed(name)
	if b == nil {
		c.t.Fatalf("the map lacks %s", name)
	}
	for i := range 10_000 {
		key := fmt.Sprint(prefix, i)
		if string(m.OwnerNode(placement.SlotOf(b.ID, key, len(m.Slots)))) == node {
			return key
		}
	}
	c.t.Fatalf("no key of %s", node)
	return ""
}

func s3name(b string) core.BucketName { return core.BucketName{Provider: core.S3, Name: b} }

// TestRemoteBuckets walks through what users do with remote buckets, against
// real servers of S3 and GCS.
func TestRemoteBuckets(t *testing.T) {
	c := startClouds(t, 3, "src", "dst", "vanishes", "train", "far")
	t.Run("first use", func(t *testing.T) { c.in(t).firstUse() })
	t.Run("reads", func(t *testing.T) { c.in(t).reads() })
	t.Run("writes", func(t *testing.T) { c.in(t).writes() })
	t.Run("latest", func(t *testing.T) { c.in(t).latest() })
	t.Run("evict", func(t *testing.T) { c.in(t).evict() })
	t.Run("clients", func(t *testing.T) { c.in(t).s3Clients() })
	t.Run("gcs", func(t *testing.T) { c.in(t).gcs() })
	t.Run("jobs", func(t *testing.T) { c.in(t).jobs() })
	t.Run("files", func(t *testing.T) { c.in(t).serverFiles() })
	t.Run("lru", func(t *testing.T) { c.in(t).lru() })
	t.Run("nats", func(t *testing.T) { c.in(t).natsBuckets() })
	t.Run("refusals", func(t *testing.T) { c.in(t).refusals() })
	t.Run("vanished", func(t *testing.T) { c.in(t).vanished() })
}

// in is c for a subtest.
func (c *clouds) in(t *testing.T) *clouds {
	sub, cl := *c, *c.cluster
	cl.t = t
	sub.cluster = &cl
	return &sub
}

func (c *clouds) firstUse() {
	c.seedMany("src", "o", 130, 1024)
	if out := c.must("ls", "s3"); out != "No s3:// buckets in the cluster. Use --all to list all accessible buckets.\n" {
		c.t.Errorf("ls s3: %s", out)
	}
	c.has(c.code(4, "ls", "s3", "--all"), "of the account ") // of three accounts that cannot be asked, one
	c.has(c.must("ls", "gs", "--all", "--no-headers"), "gs://dst\n", "gs://src\n")
	// Many at once make one bucket.
	g, ctx := errgroup.WithContext(c.t.Context())
	for _, n := range c.nodes {
		for range 3 {
			g.Go(func() error {
				_, err := c.client(n).Bucket(ctx, s3name("src"))
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		c.t.Errorf("first uses at once: %v", err)
	}
	if out := c.must("ls", "s3", "--no-headers"); out != "s3://src\n" {
		c.t.Errorf("ls s3: %s", out)
	}
	want := `{"bucket":"s3://src","accessible":true,"present":{"objects":0,"bytes":0},"remote":{"objects":130,"bytes":133120}}` + "\n"
	if out := c.must("storage", "summary", "s3://src", "--all", "--json"); out != want {
		c.t.Errorf("summary: %s", out)
	}
	c.has(c.code(4, "cp", "s3://src", "shoal://copy"), "0 of 130 objects are present; use --all")
	c.code(3, "bucket", "show", "shoal://copy") // nothing was started
	// Aliases: a name that is taken, one that is chosen, and one that collides.
	c.must("bucket", "create", "shoal://train")
	c.has(c.must("bucket", "show", "s3://train"), "s3--train")
	c.has(c.must("bucket", "create", "s3://far", "--alias", "near", "--props", "scheme=mirror-3"), "mirror-3", "S3 name near")
	c.has(c.code(4, "bucket", "create", "gs://far", "--alias", "near"), `"near" is that of bucket s3://far`)
	c.has(c.must("bucket", "create", "gs://far"), "in use: gs://far")
	c.has(c.must("bucket", "rm", "s3://far", "--yes"), "nothing was removed at the remote")
	if _, err := c.direct.HeadBucket(c.t.Context(), &s3.HeadBucketInput{Bucket: aws.String("far")}); err != nil {
		c.t.Errorf("the bucket at the remote is gone: %v", err)
	}
	c.has(c.must("bucket", "create", "s3://made", "--create"), "created s3://made")
	if _, err := c.direct.HeadBucket(c.t.Context(), &s3.HeadBucketInput{Bucket: aws.String("made")}); err != nil {
		c.t.Errorf("the bucket was not made at the remote: %v", err)
	}
}

func (c *clouds) reads() {
	small, big := fill(1, 100_000), fill(2, 24<<20)
	c.seed("src", "r/small", small)
	c.seed("src", "r/big", big)
	c.wantColumn("no", "s3://src/r/small", "s3://src/r/big")
	if d := c.cost(func() { c.wantCat(small, "s3://src/r/small") }); d.Of(cloudtest.GetObject).Requests != 1 || d.Of().Requests > 2 {
		c.t.Errorf("a cold read of one block cost %+v", d.ByOp)
	}
	c.wantColumn("yes", "s3://src/r/small")
	c.quiet("reads of what is present", func() {
		c.wantCat(small, "s3://src/r/small")
		c.has(c.must("stat", "s3://src/r/small"), "text/x-seed", "from=seed", "Cached:")
		c.has(c.must("ls", "s3://src/r/", "--cached", "--no-headers"), "r/small\n")
	})
	// A range brings the blocks that it needs, which are remembered.
	at := 9 << 20
	part := big[at : at+1000]
	ranged := []string{"s3://src/r/big", "--offset", fmt.Sprint(at), "--length", "1000"}
	if d := c.cost(func() { c.wantCat(part, ranged...) }); d.Of(cloudtest.GetObject).Out > 17<<20 {
		c.t.Errorf("a range of 1,000 bytes cost %+v", d.ByOp)
	}
	c.wantColumn("part", "s3://src/r/big")
	c.quiet("a range that is present", func() { c.wantCat(part, ranged...) })
	file := filepath.Join(c.t.TempDir(), "big")
	c.must("get", "s3://src/r/big", file)
	if got := readFile(c.t, file); got != string(big) {
		c.t.Errorf("get: %d bytes that differ", len(got))
	}
	c.wantColumn("yes", "s3://src/r/big")
	c.has(c.must("storage", "summary", "s3://src", "--cached", "--json"), fmt.Sprintf(`"present":{"objects":2,"bytes":%d}`, len(small)+len(big)), `"remote":null`)
	c.has(c.must("ls", "s3://src", "--summary", "--not-cached"), "130 objects")
	c.code(3, "cat", "s3://src/none")
	c.code(3, "stat", "s3://src/none")
}

func (c *clouds) writes() {
	data, big := fill(3, 50_000), fill(4, 40<<20)
	dir := c.t.TempDir()
	for name, b := range map[string][]byte{"a.txt": data, "big.bin": big} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	c.must("put", filepath.Join(dir, "a.txt"), "s3://dst/w/")
	if got := c.there("dst", "w/a.txt"); !bytes.Equal(got, data) {
		c.t.Errorf("put: the remote has %d bytes", len(got))
	}
	c.quiet("a read of what was written", func() { c.wantCat(data, "s3://dst/w/a.txt") })
	c.must("put", filepath.Join(dir, "big.bin"), "s3://dst/w/")
	if got := c.there("dst", "w/big.bin"); !bytes.Equal(got, big) {
		c.t.Errorf("put of a large one: the remote has %d bytes that differ", len(got))
	}
	c.quiet("a read of what was written in parts", func() { c.wantCat(big, "s3://dst/w/big.bin") })
	c.must("cp", "s3://dst/w/a.txt", "s3://dst/w/b.txt")
	c.must("cp", "s3://dst/w/a.txt", "shoal://train/a.txt")
	c.wantCat(data, "shoal://train/a.txt")
	c.must("mv", "s3://dst/w/b.txt", "s3://dst/w/c.txt")
	if got := c.there("dst", "w/c.txt"); !bytes.Equal(got, data) || c.there("dst", "w/b.txt") != nil {
		c.t.Errorf("mv: the remote has %d bytes", len(got))
	}
	c.must("rm", "s3://dst/w/c.txt", "--yes")
	if c.there("dst", "w/c.txt") != nil {
		c.t.Error("rm: the remote still has it")
	}
	c.code(3, "stat", "s3://dst/w/c.txt")
	c.has(c.must("rm", "-r", "s3://dst/w/", "--yes"), "removed 2 objects")
	if out := c.must("ls", "s3://dst/w/", "--no-headers"); out != "" || c.there("dst", "w/a.txt") != nil {
		c.t.Errorf("rm -r left %q", out)
	}
}

func (c *clouds) latest() {
	first, second, third := fill(5, 1000), fill(6, 2000), fill(7, 3000)
	c.seed("src", "l/k", first)
	c.wantCat(first, "s3://src/l/k")
	c.wantColumn("yes", "s3://src/l/k")
	c.seed("src", "l/k", second)
	c.quiet("a read of a copy", func() { c.wantCat(first, "s3://src/l/k") })
	c.wantCat(second, "s3://src/l/k", "--latest")
	c.wantColumn("yes", "s3://src/l/k")
	c.quiet("a read of the new copy", func() { c.wantCat(second, "s3://src/l/k") })
	c.seed("src", "l/k", third)
	c.has(c.must("stat", "s3://src/l/k", "--latest"), "3000")
	file := filepath.Join(c.t.TempDir(), "k")
	c.must("get", "s3://src/l/k", file, "--latest")
	if readFile(c.t, file) != string(third) {
		c.t.Error("get --latest: not the latest")
	}
	c.wantColumn("yes", "s3://src/l/k")
	if _, err := c.direct.DeleteObject(c.t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("src"), Key: aws.String("l/k")}); err != nil {
		c.t.Fatal(err)
	}
	c.quiet("a read of a copy of what was removed", func() { c.wantCat(third, "s3://src/l/k") })
	c.code(3, "cat", "s3://src/l/k", "--latest")
	c.code(3, "cat", "s3://src/l/k", "--sync")
	if out := c.must("ls", "s3://src/l/", "--cached", "--no-headers"); out != "" {
		c.t.Errorf("after --sync the cluster has %q", out)
	}
	c.code(3, "cat", "s3://src/l/k")
}

func (c *clouds) evict() {
	data := c.seedMany("src", "e/", 6, 200_000)
	for key, b := range data {
		c.wantCat(b, "s3://src/"+key)
	}
	c.code(2, "evict", "s3://src/e/0001") // asks
	c.has(c.must("evict", "s3://src/e/0001", "--yes"), "evicted 1 object,")
	c.has(c.must("evict", "s3://src", "--list", "e/0002,e/0003", "--yes"), "evicted 2 objects")
	c.has(c.must("evict", "s3://src", "--template", "e/{0004..0005}", "--yes", "--keep-md"), "evicted 2 objects")
	c.wantColumn("no", "s3://src/e/0001", "s3://src/e/0003", "s3://src/e/0004")
	c.wantColumn("yes", "s3://src/e/0000")
	for key, b := range data {
		c.wantCat(b, "s3://src/"+key) // nothing was removed at the remote
	}
	c.has(c.must("evict", "s3://src/e/", "--yes", "--regex", "[0-3]$"), "evicted 4 objects")
	c.must("bucket", "create", "gs://src")
	c.must("evict", "gs://src", "--yes")
	c.has(c.must("ls", "gs", "--no-headers"), "gs://far\n")
	if out := c.must("ls", "gs", "--no-headers"); strings.Contains(out, "gs://src") {
		c.t.Errorf("an evicted bucket is still known: %s", out)
	}
	c.code(4, "evict", "shoal://train", "--yes")
}

// s3Clients does what S3 clients do, through the alias.
func (c *clouds) s3Clients() {
	ctx := c.t.Context()
	k := c.s3("n2", 30*time.Second, 2)
	list, err := k.ListBuckets(ctx, &s3.ListBucketsInput{})
	if err != nil {
		c.t.Fatal(err)
	}
	var aliases []string
	for _, b := range list.Buckets {
		aliases = append(aliases, *b.Name)
	}
	c.has(strings.Join(aliases, " "), "src", "s3--train")
	bucket, key, data := aws.String("src"), aws.String("c/k"), fill(8, 30_000)
	put, err := k.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: bytes.NewReader(data), IfNoneMatch: aws.String("*"), Metadata: map[string]string{"a": "b"}})
	if err != nil {
		c.t.Fatalf("put: %v", err)
	}
	if _, err := k.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: bytes.NewReader(data), IfNoneMatch: aws.String("*")}); err == nil || !strings.Contains(err.Error(), "PreconditionFailed") {
		c.t.Errorf("a second put if there is none: %v", err)
	}
	head, err := c.direct.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: key})
	if err != nil || *head.ETag != *put.ETag || head.Metadata["a"] != "b" {
		c.t.Errorf("the remote has %v, %v; want ETag %s", head, err, *put.ETag)
	}
	page, err := k.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket, Prefix: aws.String("o"), MaxKeys: aws.Int32(100)})
	if err != nil || len(page.Contents) != 100 || !*page.IsTruncated {
		c.t.Fatalf("list: %d objects, %v", len(page.Contents), err)
	}
	page, err = k.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket, Prefix: aws.String("o"), ContinuationToken: page.NextContinuationToken})
	if err != nil || len(page.Contents) != 30 {
		c.t.Errorf("list: %d further objects, %v", len(page.Contents), err)
	}
	page, err = k.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket, Delimiter: aws.String("/")})
	if err != nil || len(page.CommonPrefixes) < 3 {
		c.t.Errorf("list with a delimiter: %d prefixes, %v", len(page.CommonPrefixes), err)
	}
	_, err = k.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String("s3--train")})
	if err == nil || !strings.Contains(err.Error(), "InvalidBucketState") {
		c.t.Errorf("DeleteBucket of a remote bucket: %v", err)
	}
	if _, err := k.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("s3--train")}); err == nil {
		c.t.Error("CreateBucket of the name of a remote bucket passed")
	}
	if _, err := k.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: key}); err != nil || c.there("src", "c/k") != nil {
		c.t.Errorf("delete: %v", err)
	}
	// A throttled remote is obeyed while the client waits.
	c.seed("src", "c/slow", data)
	c.s3p.SetRules(cloudtest.Rule{Ops: []cloudtest.Op{cloudtest.GetObject}, Fault: cloudtest.Answer, Status: 503, Code: "SlowDown", Times: 2})
	defer c.s3p.SetRules()
	c.wantCat(data, "s3://src/c/slow")
}

func (c *clouds) gcs() {
	data := fill(9, 300_000)
	file := filepath.Join(c.t.TempDir(), "g")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.must("put", file, "gs://dst/a/g")
	resp, err := http.Get(c.gcsd.URL() + "/download/storage/v1/b/dst/o/" + url.PathEscape("a/g") + "?alt=media")
	if err != nil {
		c.t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || !bytes.Equal(got, data) {
		c.t.Errorf("put: the remote has %d bytes, %v", len(got), err)
	}
	c.quiet("a read of what was written to GCS", func() { c.wantCat(data, "gs://dst/a/g") })
	c.must("evict", "gs://dst/a/", "--yes")
	c.wantColumn("no", "gs://dst/a/g")
	c.wantCat(data, "gs://dst/a/g")
	c.wantColumn("yes", "gs://dst/a/g")
	c.must("cp", "gs://dst/a/g", "s3://dst/from-gcs")
	if got := c.there("dst", "from-gcs"); !bytes.Equal(got, data) {
		c.t.Errorf("cp to S3: it has %d bytes", len(got))
	}
	c.must("rm", "gs://dst/a/g", "--yes")
	c.code(3, "cat", "gs://dst/a/g")
}

// jobs copies what is present, and with --all what is not.
func (c *clouds) jobs() {
	data := c.seedMany("train", "j/", 40, 3000)
	n := 0
	for key, b := range data {
		if n++; n <= 25 {
			c.wantCat(b, "s3://train/"+key)
		}
	}
	c.quiet("a copy of what is present", func() {
		c.has(c.must("cp", "s3://train", "shoal://copy", "--prefix", "j/"), "copied 25 objects")
	})
	if got := names(c.t, c.client(""), core.BucketName{Provider: core.Shoal, Name: "copy"}); len(got) != 25 {
		c.t.Errorf("the copy has %d objects, want 25", len(got))
	}
	c.has(c.must("cp", "shoal://copy", "s3://dst", "--prepend", "job/"), "copied 25 objects")
	for key, b := range data {
		if got := c.there("dst", "job/"+key); got != nil && !bytes.Equal(got, b) {
			c.t.Errorf("the job wrote %d bytes to %s that differ", len(got), key)
		} else if got != nil {
			n--
		}
	}
	if n -= len(data) - 25; n != 0 {
		c.t.Errorf("%d objects are not at the remote", n)
	}
	c.has(c.must("cp", "s3://dst", "gs://jobs", "--prefix", "job/", "--create", "--dry-run"), "25 objects")
	c.has(c.code(3, "cp", "s3://dst", "gs://jobs", "--prefix", "job/", "--dry-run"), "--create") // it made none
	c.has(c.must("cp", "s3://dst", "gs://jobs", "--prefix", "job/", "--create"), "copied 25 objects")
	c.has(c.must("ls", "gs://jobs", "--summary"), "25 objects")
	c.has(c.must("cp", "s3://src", "shoal://everything", "--all", "--prefix", "o"), "copied 130 objects")
	c.code(3, "cp", "s3://train", "s3://nowhere")
	c.must("bucket", "rm", "s3://train", "--yes")
	c.has(c.must("bucket", "show", "s3://train"), "s3--train")
	if out := c.must("ls", "s3://train", "--cached", "--no-headers"); out != "" {
		c.t.Errorf("a bucket that was forgotten came back with %q", out)
	}
}

// refusals are what a remote says no to, in words and exit codes.
func (c *clouds) refusals() {
	c.has(c.code(3, "ls", "s3://nowhere"), "s3://nowhere: no such bucket at the remote")
	c.has(c.code(3, "storage", "summary", "s3://nowhere", "--json"), "no such bucket")
	c.has(c.code(4, "bucket", "create", "s3://dst1", "--props", "account=bad,name=dst"), "refuses the cluster's credentials", "SignatureDoesNotMatch")
	c.has(c.code(4, "bucket", "create", "s3://dst2", "--props", "account=away,name=dst"), "region", c.s3d.Region())
	c.has(c.code(5, "bucket", "create", "s3://dst3", "--props", "account=dead,name=dst"), "not available", "127.0.0.1:", "refused")
	c.s3p.SetRules(cloudtest.Rule{Fault: cloudtest.Answer, Status: 503, Code: "SlowDown"})
	began := time.Now()
	c.has(c.code(5, "bucket", "show", "s3://dst4"), "asks for fewer requests")
	if d := time.Since(began); d > 25*time.Second {
		c.t.Errorf("a throttled remote was waited for %s", d)
	}
	c.s3p.SetRules()
	// None of them is known now.
	if out := c.must("ls", "s3", "--no-headers"); strings.Contains(out, "dst1") || strings.Contains(out, "nowhere") {
		c.t.Errorf("ls s3: %s", out)
	}
	// The same bucket under another name, at another account.
	c.has(c.must("bucket", "create", "s3://mirror-of-dst", "--props", "name=dst"), "in use")
	c.has(c.must("ls", "s3://mirror-of-dst", "--no-headers"), "from-gcs\n")
}

// vanished removes a bucket at the remote: what is present stays readable.
func (c *clouds) vanished() {
	data := fill(10, 5000)
	c.seed("vanishes", "k", data)
	c.wantCat(data, "s3://vanishes/k")
	c.wantColumn("yes", "s3://vanishes/k")
	ctx := c.t.Context()
	if _, err := c.direct.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String("vanishes"), Key: aws.String("k")}); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.direct.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String("vanishes")}); err != nil {
		c.t.Fatal(err)
	}
	c.quiet("a read of what is present", func() {
		c.wantCat(data, "s3://vanishes/k")
		if out := c.must("ls", "s3://vanishes", "--cached", "--no-headers"); out != "k\n" {
			c.t.Errorf("ls --cached: %q", out)
		}
	})
	c.has(c.code(3, "ls", "s3://vanishes"), "no such bucket at the remote")
	c.has(c.code(3, "cat", "s3://vanishes/other"), "does not exist")
	c.has(c.code(3, "put", filepath.Join("testdata", "..", "doc.go"), "s3://vanishes/new"), "does not exist")
	out, _ := c.shoal("", "storage", "summary", "s3://vanishes", "--json")
	c.has(out, `"accessible":false,"present":{"objects":1,"bytes":5000},"remote":null,"reason":{"code":"no_such_bucket"`)
}

// TestRemoteLosses: what is present is read from the cluster whatever happens to
// nodes, and requests that are under way when an owner dies come to an end that
// is true.
func TestRemoteLosses(t *testing.T) {
	c := startClouds(t, 4, "data")
	t.Run("cold read", func(t *testing.T) { c.in(t).killDuringColdRead() })
	t.Run("write", func(t *testing.T) { c.in(t).killDuringWrite(core.S3, "n4") })
	t.Run("write to gs", func(t *testing.T) { c.in(t).killDuringWrite(core.GCS, "n3") })
	t.Run("present", func(t *testing.T) { c.in(t).lossAndRebalance() })
}

func (c *clouds) killDuringColdRead() {
	const size = 32 << 20
	c.must("bucket", "create", "s3://data")
	key := c.keyOwned(s3name("data"), "cold/", "n3")
	want := fill(11, size)
	c.seed("data", key, want)
	c.s3p.SetRules(cloudtest.Rule{Ops: []cloudtest.Op{cloudtest.GetObject}, Bandwidth: 4 << 20})
	defer c.s3p.SetRules()
	// The client sticks to a node that does not die.
	r, err := c.client("n1").Get(c.t.Context(), "data", key, client.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	got := make([]byte, size)
	if _, err := io.ReadFull(r, got[:4<<20]); err != nil {
		c.t.Fatalf("the first 4 MiB: %v", err)
	}
	c.kill("n3")
	if _, err := io.ReadFull(r, got[4<<20:]); err != nil || !bytes.Equal(got, want) {
		c.t.Errorf("the read that was under way: %v, equal: %v", err, bytes.Equal(got, want))
	}
	c.s3p.SetRules()
	c.start("n3")
	c.waitHealthy(90 * time.Second)
}

// killDuringWrite kills the owner of a key while the remote takes its time over a PUT.
func (c *clouds) killDuringWrite(provider core.Provider, owner string) {
	name, proxy, alias := s3name("data"), c.s3p, "data"
	at := func(key string) []byte { return c.there("data", key) }
	if provider == core.GCS {
		name.Provider, proxy, alias = core.GCS, c.gcsp, "gs--data"
		at = func(key string) []byte {
			data, err := c.atGCS(c.t.Context(), "data", key)
			if err != nil {
				c.t.Errorf("at the GCS server: %v", err)
			}
			return data
		}
		c.must("ls", name.String()) // its first use
	}
	key := c.keyOwned(name, "write/", owner)
	old, fresh := fill(12, 100_000), fill(13, 200_000)
	k := oneshot.New(oneshot.Options{URL: c.urls["n1"], AccessKey: "shoaldev", Secret: "shoaldev-secret", Timeout: 60 * time.Second, Retries: 0})
	write := func(data []byte) error {
		_, err := k.PutObject(c.t.Context(), &s3.PutObjectInput{Bucket: &alias, Key: &key, Body: bytes.NewReader(data)},
			func(o *s3.Options) { o.Retryer = retry.AddWithMaxAttempts(retry.NewStandard(), 1) })
		return err
	}
	if err := write(old); err != nil {
		c.t.Fatal(err)
	}
	// The remote takes its time, so that the owner dies in between.
	proxy.SetRules(cloudtest.Rule{Ops: []cloudtest.Op{cloudtest.PutObject}, Latency: time.Second})
	defer proxy.SetRules()
	began := proxy.Counts()
	end := make(chan error, 1)
	go func() { end <- write(fresh) }()
	if err := proxy.Await(c.t.Context(), func(n cloudtest.Counts) bool { return n.Sub(began).Of(cloudtest.PutObject).Requests > 0 }); err != nil {
		c.t.Fatal(err)
	}
	c.kill(owner)
	err := <-end
	proxy.SetRules()
	var got []byte
	poll(c.t, 60*time.Second, "the key settled", func(ctx context.Context) error {
		var err error
		got, err = body(ctx, c.client("n1"), alias, key)
		return err
	})
	there := at(key)
	switch {
	case err == nil && !bytes.Equal(there, fresh):
		c.t.Errorf("the put was acknowledged, and the remote has %d bytes", len(there))
	case !bytes.Equal(there, fresh) && !bytes.Equal(there, old):
		c.t.Errorf("the remote has %d bytes that nobody wrote", len(there))
	}
	if !bytes.Equal(got, there) {
		c.t.Errorf("the put ended with %v; the cluster reads %d bytes, the remote has %d", err, len(got), len(there))
	}
	c.t.Logf("the put under way ended with: %v", err)
	c.start(owner)
	// What is fetched while slots return to it may not be kept.
	c.waitHealthy(90 * time.Second)
	if got, err := body(c.t.Context(), c.client(owner), alias, key); err != nil || !bytes.Equal(got, at(key)) {
		c.t.Errorf("after its restart: %d bytes, %v, not what the remote has", len(got), err)
	}
}

func (c *clouds) lossAndRebalance() {
	data := c.seedMany("data", "p/", 60, 150_000)
	k := c.client("n1")
	g, ctx := errgroup.WithContext(c.t.Context())
	g.SetLimit(8)
	read := func(k *client.Client, key string, want []byte) error {
		got, err := body(ctx, k, "data", key)
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%s: %d bytes that differ", key, len(got))
		}
		return err
	}
	for key, want := range data {
		g.Go(func() error { return read(k, key, want) })
	}
	if err := g.Wait(); err != nil {
		c.t.Fatal(err)
	}
	for key := range data {
		c.wantColumn("yes", "s3://data/"+key)
	}
	ctx = c.t.Context()
	all := func(what string) {
		for key, want := range data {
			if err := read(k, key, want); err != nil {
				c.t.Errorf("%s: %v", what, err)
				return
			}
		}
	}
	c.quiet("the loss of a node and a rebalance", func() {
		all("whole")
		c.kill("n2")
		all("without n2")
		name, err := c.Add(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
			all("while data moves to " + name)
		}
		c.start("n2")
		all("whole again")
	})
}
