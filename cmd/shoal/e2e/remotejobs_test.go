package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/cloudtest"
)

// TestRemoteJobs runs jobs over what is not present, against servers of others.
func TestRemoteJobs(t *testing.T) {
	c := startClouds(t, 3, "flat", "deep", "skewed", "dst")
	const keys = 5000
	for bucket, key := range map[string]func(i int) string{
		"flat": func(i int) string { return fmt.Sprintf("img-%08d.jpg", i) },
		"deep": func(i int) string { return fmt.Sprintf("data/train/class%03d/part%d/s-%06d", i%97, i/97%7, i) },
		"skewed": func(i int) string {
			if i < 260 {
				return fmt.Sprintf("%c/%d", 'a'+i%26, i/26)
			}
			return fmt.Sprintf("m/big/%07d", i)
		},
	} {
		data := []byte("0123456789")
		g, ctx := errgroup.WithContext(t.Context())
		g.SetLimit(16)
		for i := range keys {
			k := key(i)
			g.Go(func() error {
				_, err := c.direct.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &k, Body: bytes.NewReader(data)})
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		before := c.s3p.Counts()
		j := c.job("start", "prefetch", "s3://"+bucket, "--dry-run", "--progress")
		want := api.Amount{Objects: keys, Bytes: int64(keys * len(data))}
		if j.Planned == nil || *j.Planned != want {
			t.Errorf("%s: planned %+v, want %+v", bucket, j.Planned, want)
		}
		calls, most := c.s3p.Counts().Sub(before).Of(cloudtest.List).Requests, int64(keys/1000*11/10+16)
		t.Logf("%s: %d calls list %d keys", bucket, calls, keys)
		if calls > most {
			t.Errorf("%s: %d calls, want %d at the most", bucket, calls, most)
		}
	}
	c.copyPast(t)
	c.copyAgain(t)
	c.transformBetween(t)
	c.follow(t)
	c.copyBetween(t)
}

// transformBetween transforms from one cloud into another, and back with half of it
// dropped. A dry run says beforehand what will be.
func (c *clouds) transformBetween(t *testing.T) {
	want := c.seedMany("dst", "etl/", 40, 3000)
	want["etl/large"] = fill(6, 12<<20) // is streamed
	c.seed("dst", "etl/large", want["etl/large"])
	want["etl/empty"] = nil
	c.seed("dst", "etl/empty", nil)
	for _, name := range []string{"upper", "grep"} {
		c.must("etl", "init", "wasm", "--name", name, "--from-file", "../../../wasmetl/testdata/c/"+name+".wasm")
	}
	there := []string{"s3://dst", "gs://dst", "--all", "--prefix", "etl/", "--prepend", "up-"}
	var dry struct {
		api.Job
		Preview api.Preview `json:"preview"`
	}
	out := c.must(append([]string{"etl", "bucket", "upper", "--dry-run", "--json"}, there...)...)
	if err := json.Unmarshal([]byte(out), &dry); err != nil || dry.Planned == nil || dry.Planned.Objects != 42 || len(dry.Preview.Objects) != 10 || !dry.Preview.More {
		t.Fatalf("dry run: %v, %s", err, out)
	}
	if x := dry.Preview.Objects[0]; x.Name != "etl/0000" || len(x.Outputs) != 1 || x.Outputs[0] != (api.PreviewOutput{Name: "up-etl/0000", Size: 3000}) {
		t.Errorf("dry run: %+v", x)
	}
	if _, err := c.atGCS(t.Context(), "dst", "up-etl/0000"); err == nil {
		t.Error("a dry run has written")
	}
	j := c.job(append([]string{"etl", "bucket", "upper", "--progress"}, there...)...)
	if j.State != api.JobDone || j.Done.Objects != 42 || j.Outputs != j.Done {
		t.Errorf("transformed: %+v", j)
	}
	for key, data := range want {
		got, err := c.atGCS(t.Context(), "dst", "up-"+key)
		if err != nil || !bytes.Equal(got, upperOf(data)) {
			t.Errorf("%s: %d bytes of %d, %v", key, len(got), len(data), err)
		}
	}
	c.seed("dst", "words/1", []byte("one word\nand another\n"))
	c.seed("dst", "words/2", []byte("none\n"))
	back := c.job("etl", "bucket", "grep", "s3://dst", "s3://dst", "--all", "--latest", "--prefix", "words/", "--prepend", "found-", "--arg", "word=word", "--progress")
	if back.State != api.JobDone || back.Done.Objects != 1 || back.Dropped.Objects != 1 || back.Planned.Objects != 2 {
		t.Errorf("with one dropped: %+v", back)
	}
	if got := c.there("dst", "found-words/1"); string(got) != "one word\n" {
		t.Errorf("found %q", got)
	}
	if got := c.there("dst", "found-words/2"); got != nil {
		t.Errorf("what was dropped is %q", got)
	}
	if _, err := c.shoal("", append([]string{"etl", "bucket", "upper", "--sync"}, there...)...); err == nil || !strings.Contains(err.Error(), "--latest") {
		t.Errorf("--sync: %v", err)
	}
}

// copyPast copies with --no-cache, to the other cloud and within one: nothing of it is
// in the cluster then.
func (c *clouds) copyPast(t *testing.T) {
	want := c.seedMany("dst", "past/", 40, 300_000)
	c.seed("dst", "past/large", fill(5, 40<<20))
	want["past/large"] = fill(5, 40<<20)
	for _, to := range []string{"gs", "s3"} {
		before := c.s3p.Counts()
		j := c.job("cp", "s3://dst", to+"://dst", "--all", "--prefix", "past/", "--prepend", to+"-", "--no-cache", "--progress")
		if j.State != api.JobDone || j.Done.Objects != 41 {
			t.Errorf("to %s: %+v", to, j)
		}
		if n := c.s3p.Counts().Sub(before); to == "s3" && n.Of(cloudtest.GetObject).Requests+n.Of(cloudtest.PutObject).Requests != 0 {
			t.Errorf("within one account: %+v", n)
		}
		for key, data := range want {
			got, err := c.there("dst", to+"-"+key), error(nil)
			if to == "gs" {
				got, err = c.atGCS(t.Context(), "dst", to+"-"+key)
			}
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("to %s: %s: %d bytes of %d, %v", to, key, len(got), len(data), err)
			}
		}
		for _, uri := range []string{"s3://dst", to + "://dst"} {
			if out := c.must("ls", uri, "--cached", "--no-headers"); out != "" {
				t.Errorf("to %s: of %s there is %s", to, uri, out)
			}
		}
	}
	if _, err := c.shoal("", "cp", "shoal://a", "shoal://b", "--no-cache"); err == nil {
		t.Error("--no-cache between buckets of the cluster")
	}
}

// job runs a command that starts a job and waits for it.
func (c *cluster) job(args ...string) (j api.Job) {
	c.t.Helper()
	out := c.must(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &j); err != nil {
		c.t.Fatalf("%v: %v in %s", args, err, out)
	}
	return j
}

// copyAgain copies to a cloud that forbids some keys, and retries those once it does
// not. What either job asked of the clouds is told with it.
func (c *clouds) copyAgain(t *testing.T) {
	want := c.seedMany("dst", "again/", 30, 5000)
	const forbidden = "again-again/000"
	c.gcsp.SetRules(cloudtest.Rule{Ops: []cloudtest.Op{cloudtest.PutObject}, KeyPrefix: forbidden, Fault: cloudtest.Answer, Status: http.StatusForbidden})
	out, err := c.shoal("", "cp", "s3://dst", "gs://dst", "--all", "--prefix", "again/", "--prepend", "again-", "--cont-on-err", "--progress", "--json")
	c.gcsp.SetRules()
	var j api.Job
	if uerr := json.Unmarshal([]byte(out), &j); err == nil || uerr != nil || j.Failed.Objects != 10 || j.Done.Objects != 20 {
		t.Fatalf("got %v, %v, want 10 of 30 failed: %s", err, uerr, out)
	}
	c.gcsp.ResetCounts()
	again := c.job("start", "retry", j.ID, "--progress")
	if again.State != api.JobDone || again.RetryOf != j.ID || again.Planned == nil || again.Planned.Objects != 10 || again.Done.Objects != 10 {
		t.Errorf("retry: %+v", again)
	}
	if n := c.gcsp.Counts().Of(cloudtest.PutObject).Requests; n != 10 {
		t.Errorf("the retry sent %d uploads, want 10", n)
	}
	for key, data := range want {
		got, err := c.atGCS(t.Context(), "dst", "again-"+key)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes of %d, %v", key, len(got), len(data), err)
		}
	}
	for _, id := range []string{j.ID, again.ID} {
		out := c.must("show", "job", id)
		if !regexp.MustCompile(`(?m)^Cloud: +[1-9]\d* requests, \S+ \S+ in, [1-9]\S* KiB out$`).MatchString(out) {
			t.Errorf("%s does not tell what it cost: %s", id, out)
		}
	}
	if again.Cloud == nil || again.Cloud.BytesOut < 10*5000 || again.Cloud.BytesOut > 11*5000 {
		t.Errorf("the retry cost %+v, want 10 objects of 5000 bytes sent", again.Cloud)
	}
}

// copyBetween copies from one cloud to another while a node is killed.
func (c *clouds) copyBetween(t *testing.T) {
	want := c.seedMany("dst", "from/", 600, 700)
	c.gcsp.ResetCounts()
	var g errgroup.Group
	var j api.Job
	g.Go(func() error {
		out, err := c.shoal("n1", "cp", "s3://dst", "gs://dst", "--all", "--prefix", "from/", "--prepend", "to-", "--progress", "--json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return json.Unmarshal([]byte(out), &j)
	})
	err := c.gcsp.Await(t.Context(), func(n cloudtest.Counts) bool { return n.Of(cloudtest.PutObject).Requests >= 100 })
	if err != nil {
		t.Fatal(err)
	}
	c.kill("n3")
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	puts := c.gcsp.Counts().Of(cloudtest.PutObject).Requests
	if j.State != api.JobDone || j.Done.Objects != 600 || j.Planned == nil || j.Planned.Objects != 600 {
		t.Errorf("got %+v", j)
	}
	t.Logf("600 objects by %d uploads, one node killed", puts)
	if puts < 600 || puts > 600+100 {
		t.Errorf("%d uploads of 600 objects", puts)
	}
	for key, data := range want {
		got, err := c.atGCS(t.Context(), "dst", "to-"+key)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes of %d, %v", key, len(got), len(data), err)
		}
	}
}

// follow copies to another cloud and follows what changes and goes at the source.
func (c *clouds) follow(t *testing.T) {
	want := c.seedMany("dst", "follow/", 30, 2000)
	copied := []string{"cp", "s3://dst", "gs://dst", "--prefix", "follow/", "--prepend", "f-", "--progress"}
	books := func(j api.Job, done, skipped, dropped int64) {
		t.Helper()
		if j.State != api.JobDone || j.Done.Objects != done || j.Skipped.Objects != skipped || j.Dropped.Objects != dropped {
			t.Errorf("got %+v; want %d done, %d skipped, %d dropped", j, done, skipped, dropped)
		}
	}
	same := func() {
		t.Helper()
		for key, data := range want {
			got, err := c.atGCS(t.Context(), "dst", "f-"+key)
			if data == nil && err == nil || data != nil && (err != nil || !bytes.Equal(got, data)) {
				t.Errorf("f-%s: %d bytes of %d, %v", key, len(got), len(data), err)
			}
		}
	}
	books(c.job(append(copied, "--all")...), 30, 0, 0)
	c.must("put", "remotejobs_test.go", "gs://dst/f-follow/0003.mine")
	changed := fill(9, 2500)
	c.seed("dst", "follow/0001", changed)
	want["follow/0001"] = changed
	for _, key := range []string{"follow/0002", "follow/0003", "follow/0029"} {
		if _, err := c.direct.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("dst"), Key: &key}); err != nil {
			t.Fatal(err)
		}
	}
	// By names: what the remote has now, and nothing goes.
	books(c.job(append(copied, "--latest", "--list", "follow/0001,follow/0002")...), 1, 1, 0)
	same()
	want["follow/0002"], want["follow/0003"], want["follow/0029"] = nil, nil, nil
	books(c.job(append(copied, "--all", "--sync")...), 27, 0, 3)
	same()
	if _, err := c.atGCS(t.Context(), "dst", "f-follow/0003.mine"); err != nil {
		t.Errorf("what was no copy: %v", err)
	}
	// What was read stays present until somebody follows the source there.
	c.seed("dst", "follow/0004", changed)
	books(c.job("start", "prefetch", "s3://dst", "--prefix", "follow/", "--sync", "--progress"), 1, 26, 0)
	c.wantCat(changed, "s3://dst/follow/0004")
}

// atGCS reads an object from the GCS server, past cluster and proxy.
func (c *clouds) atGCS(ctx context.Context, bucket, key string) ([]byte, error) {
	u := c.gcsd.URL() + "/storage/v1/b/" + bucket + "/o/" + url.PathEscape(key) + "?alt=media"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", key, resp.Status)
	}
	return io.ReadAll(resp.Body)
}
