package e2e_test

import (
	"fmt"
	"testing"
	"time"
)

// TestStoredBytes counts, as du does, what objects over 1 MiB take on the disks.
func TestStoredBytes(t *testing.T) {
	c := startCluster(t, 1, 6)
	var dirs []string
	for _, d := range c.node("n1").Disks {
		dirs = append(dirs, d.Path)
	}
	used := func() (n int64) {
		for _, d := range dirs {
			n += bytesIn(t, d)
		}
		return n
	}
	for _, v := range []struct {
		scheme string
		most   float64
	}{{"ec-4+2", 1.52}, {"ec-3+1", 1.36}} {
		b := c.bucket("stored-"+v.scheme[3:4], v.scheme)
		empty := used()
		var bytes int64
		for i := range 16 {
			n := 1<<20 + 1 + i*i*20_011 // up to 5.3 MiB, of no round size
			c.put(b.Name, fmt.Sprint("k", i), fill(uint64(i), n))
			bytes += int64(n)
		}
		c.waitHealthy(60 * time.Second)
		ratio := float64(used()-empty) / float64(bytes)
		t.Logf("%s: %d bytes take %.3f times as much", v.scheme, bytes, ratio)
		if ratio > v.most || ratio < 1 {
			t.Errorf("%s: %.3f times the bytes are stored, want at most %.2f", v.scheme, ratio, v.most)
		}
	}
}
