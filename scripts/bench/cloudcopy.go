package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/cloudtest"
	"github.com/shoalstore/shoal/scripts/clouds"
)

// The data sets of the section cloudcopy. Issue 5 names 10,000 x 64 KiB and
// 32 x 64 MiB; they are cut so that the section takes no more than eight minutes
// on two cores.
var cloudSets = []cloudSet{{1430, 1 << 10}, {2500, 64 << 10}, {8, 64 << 20}} //nolint:gochecknoglobals // a constant

// slowObjects is how many objects of the small sets are copied at 50 ms.
const slowObjects = 600

// jobWorkers is how many objects a node works on for each of its disks, if
// nothing else is said, and cloudDisks how many disks the nodes have.
const (
	jobWorkers = 4
	cloudDisks = 3
)

// cloudSet is a number of objects of a size.
type cloudSet struct{ objects, size int }

func (s cloudSet) String() string { return fmt.Sprintf("%d x %s", s.objects, sizeName(s.size)) }
func (s cloudSet) bucket() string { return fmt.Sprintf("set-%d-%d", s.objects, s.size) }

// cloudCopy compares a job that copies from an S3 server to one of Google Cloud
// Storage with rclone between the same two.
func (b *bench) cloudCopy(ctx context.Context) error {
	rclone, err := cloudtest.FindProgram("rclone")
	if err != nil {
		return err
	}
	b.line("## Copies from one cloud to another\n")
	b.line("`shoal cp s3://src gs://dst --all`, nothing of it present, against `rclone copy` between the same two servers on the same machine (versitygw and fake-gcs-server, which keeps what it gets in memory), one after the other, one turn each. `rclone --transfers` is the number of the job's workers in all: %d for each node. *Stored* keeps source and destination in the cluster too (mirror-2); one node keeps one copy.\n", jobWorkers*cloudDisks)
	for _, nodes := range []int{1, 3, 5} {
		if err := b.cloudCopies(ctx, rclone, nodes, cloudSets, 0); err != nil {
			return err
		}
	}
	return nil
}

// slowCloudCopy does so with servers that are far away.
func (b *bench) slowCloudCopy(ctx context.Context) error {
	rclone, err := cloudtest.FindProgram("rclone")
	if err != nil {
		return err
	}
	b.line("## Copies between clouds that are 50 ms away\n")
	b.line("As above, with 50 ms before each request to either server, and as many transfers as rclone makes by itself (4).\n")
	small := []cloudSet{{slowObjects, cloudSets[0].size}, {slowObjects, cloudSets[1].size}}
	return b.cloudCopies(ctx, rclone, 5, small, 50*time.Millisecond)
}

// cloudCopies does so with a number of nodes.
func (b *bench) cloudCopies(ctx context.Context, rclone string, nodes int, sets []cloudSet, latency time.Duration) (err error) {
	var buckets []string
	for _, s := range sets {
		buckets = append(buckets, s.bucket())
	}
	p, err := clouds.Start(ctx, clouds.Options{S3Buckets: buckets, Proxies: latency > 0})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := p.Close(); err == nil {
			err = cerr
		}
	}()
	if latency > 0 {
		p.S3Proxy.SetRules(cloudtest.Rule{Latency: latency})
		p.GCSProxy.SetRules(cloudtest.Rule{Latency: latency})
	}
	c, err := startClusterWith(ctx, b.o.shoal, nodes, cloudDisks, p.Env(), p.Flags()...)
	if err != nil {
		return err
	}
	defer func() {
		if serr := c.stop(ctx); err == nil {
			err = serr
		}
	}()
	x := &cloudBench{b: b, c: c, p: p, rclone: rclone}
	if latency == 0 {
		x.transfers = jobWorkers * cloudDisks * nodes
	}
	b.line("| %d nodes | objects/s | MB/s | against rclone | target | CPU s of the nodes | peak MiB of a node |", nodes)
	b.line("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, s := range sets {
		if err := fillCloud(ctx, p.Source(), s); err != nil {
			return err
		}
		if err := x.compare(ctx, s); err != nil {
			return err
		}
	}
	b.line("")
	return nil
}

// fillCloud puts a set into a bucket.
func fillCloud(ctx context.Context, store clouds.Store, s cloudSet) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	body := payload(s.size)
	for i := range s.objects {
		g.Go(func() error {
			return store.Put(ctx, s.bucket(), fmt.Sprintf("part-%d/object-%06d", i%10, i), bytes.NewReader(body))
		})
	}
	return g.Wait()
}

// cloudBench is a cluster before two servers.
type cloudBench struct {
	b         *bench
	c         *cluster
	p         *clouds.Pair
	rclone    string
	transfers int // 0 is rclone's own default
	buckets   int
}

// destination makes a bucket for one copy.
func (x *cloudBench) destination(ctx context.Context) (string, error) {
	x.buckets++
	name := fmt.Sprintf("dst-%d", x.buckets)
	return name, x.p.GCS.CreateBucket(ctx, name)
}

// compare copies a set in every way.
func (x *cloudBench) compare(ctx context.Context, s cloudSet) error {
	base, err := x.byRclone(ctx, s)
	if err != nil {
		return err
	}
	rate := func(d time.Duration) (objects, megabytes float64) {
		return float64(s.objects) / d.Seconds(), float64(s.objects) * float64(s.size) / 1e6 / d.Seconds()
	}
	o, mb := rate(base)
	x.b.line("| %v, rclone | %.1f | %.1f | 1 | | | |", s, o, mb)
	ways := []struct{ name, flag string }{{"stored", ""}, {"--no-cache", "--no-cache"}}
	for _, w := range ways {
		if w.flag != "" && !x.knows(ctx, w.flag) {
			x.b.line("| %v, %s | this binary has no such flag | | | | | |", s, w.name)
			continue
		}
		d, cpu, err := x.byShoal(ctx, s, w.flag)
		if err != nil {
			return err
		}
		o, mb := rate(d)
		x.b.line("| %v, %s | %.1f | %.1f | %.2f | %s | %.1f | %.0f |", s, w.name, o, mb, base.Seconds()/d.Seconds(), x.goal(s, w.flag), cpu.Seconds(), x.peak(ctx))
	}
	return nil
}

// goal is the ratio that issue 5 wants.
func (x *cloudBench) goal(s cloudSet, flag string) string {
	switch {
	case x.transfers == 0:
		return ">= 3"
	case flag != "":
		return ">= 1.5"
	case s.size < 1<<20:
		return ">= 1"
	}
	return ">= 0.9"
}

// knows says whether `shoal cp` has a flag.
func (x *cloudBench) knows(ctx context.Context, flag string) bool {
	out, err := x.c.run(ctx, "cp", "--help")
	return err == nil && bytes.Contains(out, []byte(flag))
}

// byRclone copies a set with rclone and returns how long that took.
func (x *cloudBench) byRclone(ctx context.Context, s cloudSet) (time.Duration, error) {
	dst, err := x.destination(ctx)
	if err != nil {
		return 0, err
	}
	s3, gcs := x.p.URLs()
	args := []string{"copy", "SRC:" + s.bucket(), "DST:" + dst, "--config", os.DevNull}
	if x.transfers > 0 {
		args = append(args, "--transfers", strconv.Itoa(x.transfers))
	}
	cmd := exec.CommandContext(ctx, x.rclone, args...)
	cmd.Env = []string{ // nothing of the caller's, which may have settings of other clouds
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(),
		"RCLONE_CONFIG_SRC_TYPE=s3", "RCLONE_CONFIG_SRC_PROVIDER=Other", "RCLONE_CONFIG_SRC_ENDPOINT=" + s3, "RCLONE_CONFIG_SRC_REGION=" + x.p.S3.Region(),
		"RCLONE_CONFIG_SRC_ACCESS_KEY_ID=" + x.p.S3.AccessKey(), "RCLONE_CONFIG_SRC_SECRET_ACCESS_KEY=" + x.p.S3.Secret(),
		"RCLONE_CONFIG_DST_TYPE=google cloud storage", "RCLONE_CONFIG_DST_ENDPOINT=" + gcs + "/storage/v1/", "RCLONE_CONFIG_DST_ANONYMOUS=true",
		"RCLONE_CONFIG_DST_NO_CHECK_BUCKET=true", "RCLONE_CONFIG_DST_BUCKET_POLICY_ONLY=true",
	}
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("rclone: %w: %s", err, bytes.TrimSpace(out))
	}
	return time.Since(began), x.complete(ctx, s, dst)
}

// byShoal copies a set with a job that has nothing of it, and returns how long
// that took, and the nodes' processor time.
func (x *cloudBench) byShoal(ctx context.Context, s cloudSet, flag string) (took, cpu time.Duration, err error) {
	dst, err := x.destination(ctx)
	if err != nil {
		return 0, 0, err
	}
	from, to := "s3://"+s.bucket(), "gs://"+dst
	args := []string{"cp", from, to, "--all", "--json"}
	if flag != "" {
		args = append(args, flag)
	}
	before := x.cpu(ctx)
	began := time.Now()
	out, err := x.c.run(ctx, args...)
	if err != nil {
		return 0, 0, err
	}
	took, cpu = time.Since(began), x.cpu(ctx)-before
	var j struct{ Done struct{ Objects int } }
	if err := json.Unmarshal(out, &j); err != nil || j.Done.Objects != s.objects {
		return 0, 0, fmt.Errorf("copied %d of %d objects: %w: %s", j.Done.Objects, s.objects, err, out)
	}
	if err := x.complete(ctx, s, dst); err != nil {
		return 0, 0, err
	}
	for _, b := range []string{from, to} {
		if _, err := x.c.run(ctx, "evict", b, "--yes"); err != nil {
			return 0, 0, err
		}
	}
	return took, cpu, nil
}

// complete checks that a destination has the set.
func (x *cloudBench) complete(ctx context.Context, s cloudSet, dst string) error {
	objects, size := 0, int64(0)
	for o, err := range x.p.Destination().List(ctx, dst) {
		if err != nil {
			return err
		}
		objects, size = objects+1, size+o.Size
	}
	if objects != s.objects || size != int64(s.objects)*int64(s.size) {
		return fmt.Errorf("%s: %d objects, %d bytes, want %v: %w", dst, objects, size, s, core.ErrCorrupt)
	}
	return nil
}

// cpu is the processor time of the nodes up to now.
func (x *cloudBench) cpu(ctx context.Context) (sum time.Duration) {
	for _, n := range x.c.status(ctx) {
		sum += processTime(n.PID)
	}
	return sum
}

// processTime is the processor time of a process, 0 if there is none.
func processTime(pid int) time.Duration {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	// The second field is the program's name in brackets, which may have spaces.
	_, rest, _ := strings.Cut(string(text), ") ")
	const user, system, perSecond = 11, 12, 100
	f := strings.Fields(rest)
	if len(f) <= system {
		return 0
	}
	u, _ := strconv.ParseInt(f[user], 10, 64)
	s, _ := strconv.ParseInt(f[system], 10, 64)
	return time.Duration(u+s) * time.Second / perSecond
}

// peak is the largest memory that a node has had since its start, in MiB.
func (x *cloudBench) peak(ctx context.Context) (most float64) {
	for _, n := range x.c.status(ctx) {
		most = max(most, float64(peakRSS(n.PID))/(1<<20))
	}
	return most
}
