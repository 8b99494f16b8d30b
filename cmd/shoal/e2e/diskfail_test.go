package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// TestDiskFails takes the files of a disk away from a running node: the disk is
// taken out of use and says why, the node's other disk goes on, everything can
// be read, and attaching the disk again makes it whole.
func TestDiskFails(t *testing.T) {
	c := startCluster(t, 3, 2)
	k := c.client("n1")
	c.bucket("mirrored", "mirror-2")
	const size = 300_000
	put := func(from, to int) {
		for i := from; i < to; i++ {
			c.put("mirrored", fmt.Sprint("k", i), fill(uint64(i), size))
		}
	}
	put(0, 6)
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(s.Nodes[1].Disks[0].Path, "data")
	if err := os.Rename(data, data+".away"); err != nil {
		t.Fatal(err)
	}
	n := 6
	poll(t, 30*time.Second, "the disk to fail", func(context.Context) error {
		put(n, n+1)
		n++
		if d := c.disk(t, "n2/d1"); d.State != core.DiskFailed || d.Problem == "" {
			return fmt.Errorf("it is %s: %s", d.State, d.Problem)
		}
		return nil
	})
	if d := c.disk(t, "n2/d2"); d.State != core.DiskOK {
		t.Errorf("the node's other disk is %s: %s", d.State, d.Problem)
	}
	if out := c.must("show", "cluster"); !strings.Contains(out, "disk n2/d1 is failed: ") || !strings.Contains(out, "no such file or directory") {
		t.Errorf("the cluster does not say what has failed:\n%s", out)
	}
	check := func() {
		t.Helper()
		for i := range n {
			got, err := body(t.Context(), k, "mirrored", fmt.Sprint("k", i))
			if err != nil || string(got) != string(fill(uint64(i), size)) {
				t.Errorf("k%d: got %d bytes, %v", i, len(got), err)
			}
		}
	}
	check()
	if err := os.Rename(data+".away", data); err != nil {
		t.Fatal(err)
	}
	c.must("disk", "attach", "n2/d1")
	c.waitHealthy(90 * time.Second)
	if d := c.disk(t, "n2/d1"); d.State != core.DiskOK || d.Problem != "" {
		t.Errorf("the disk is %s: %s", d.State, d.Problem)
	}
	check()
}
