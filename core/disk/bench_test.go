package disk_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/vfs"
)

func benchDisk(b *testing.B, change func(*disk.Options)) *disk.Disk {
	b.Helper()
	o := disk.Options{Dir: filepath.Join(b.TempDir(), "d"), Clock: clock(), Cluster: cluster, Node: node, FS: vfs.OS()}
	if change != nil {
		change(&o)
	}
	if _, err := disk.Format(b.Context(), disk.FormatOptions{Options: o}); err != nil {
		b.Fatal(err)
	}
	d, err := disk.Open(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	return d
}

// cpu starts to measure the process's time on the CPU, which says more than the
// clock does where others use the machine; the result reports it.
func cpu(b *testing.B) (report func(n int, unit string)) {
	used := func() float64 {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
	}
	from := used()
	b.ResetTimer()
	return func(n int, unit string) {
		b.StopTimer()
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), unit+"/s")
		b.ReportMetric(float64(n)/(used()-from), unit+"/cpu-s")
	}
}

func noise(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, (n+7)&^7)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	return b[:n]
}

// BenchmarkApply has 64 writers who each write one row at a time, durably. As
// in a node, one goroutine carries all that wait to the disk in one call.
func BenchmarkApply(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10} {
		for _, callers := range []string{"grouped", "each"} {
			b.Run(fmt.Sprintf("%dKiB/%s", size>>10, callers), func(b *testing.B) { benchApply(b, size, callers == "grouped") })
		}
	}
}

func benchApply(b *testing.B, size int, grouped bool) {
	const writers = 64
	d := benchDisk(b, nil)
	value := noise(size)
	var next atomic.Int64
	batch := func(slot core.SlotID, seq uint64) core.SlotBatch {
		v := ver(seq)
		e := core.Entry{Version: v, Request: core.NewRequestID(), Answer: value[:40], Rows: []core.Row{
			{RowKey: core.RowKey{Bucket: 1, Key: fmt.Sprintf("some/path/to/object-%08x", rand.Uint32())}, Value: value},
		}}
		out := core.SlotBatch{Slot: slot, Append: []core.Entry{e}}
		if seq > 1 {
			prev := ver(seq - 1)
			out.Commit = &prev
		}
		return out
	}
	type call struct {
		batch core.SlotBatch
		done  chan error
	}
	calls := make(chan call, writers)
	var group, carrier sync.WaitGroup
	if grouped {
		carrier.Go(func() {
			for first := range calls {
				waiting := []call{first}
				for len(calls) > 0 {
					waiting = append(waiting, <-calls)
				}
				batches := make([]core.SlotBatch, len(waiting))
				for i := range waiting {
					batches[i] = waiting[i].batch
				}
				err := d.Apply(b.Context(), batches)
				for i := range waiting {
					waiting[i].done <- err
				}
			}
		})
	}
	b.SetBytes(int64(size))
	report := cpu(b)
	for w := range writers {
		group.Go(func() {
			done := make(chan error, 1)
			for seq := uint64(1); next.Add(1) <= int64(b.N); seq++ {
				var err error
				if batch := batch(core.SlotID(w), seq); grouped {
					calls <- call{batch, done}
					err = <-done
				} else {
					err = d.Apply(b.Context(), []core.SlotBatch{batch})
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	close(calls)
	carrier.Wait()
	report(b.N, "rows")
}

// BenchmarkShard writes shards, one after the other and 16 at a time.
func BenchmarkShard(b *testing.B) {
	for _, c := range []struct {
		name    string
		size    int
		writers int
		change  func(*disk.Options)
	}{
		{"16KiB/64writers", 16 << 10, 64, nil},
		{"256KiB/1writer", 256 << 10, 1, nil},
		{"256KiB/64writers", 256 << 10, 64, nil},
		{"256KiB/64writers/direct", 256 << 10, 64, func(o *disk.Options) { o.DirectFrom = 1 }},
		{"1MiB/16writers/direct", 1 << 20, 16, nil},
		{"1MiB/16writers/buffered", 1 << 20, 16, func(o *disk.Options) { o.DirectFrom = -1 }},
		{"64MiB/1writer/direct", 64 << 20, 1, nil},
		{"64MiB/1writer/buffered", 64 << 20, 1, func(o *disk.Options) { o.DirectFrom = -1 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := benchDisk(b, c.change)
			body := noise(c.size)
			var next atomic.Int64
			var group sync.WaitGroup
			b.SetBytes(int64(c.size))
			report := cpu(b)
			for range c.writers {
				group.Go(func() {
					for next.Add(1) <= int64(b.N) {
						m := core.ShardMeta{ID: core.NewShardID(core.NewExtentID(), 0), Key: "some/key"}
						if err := benchShard(b, d, m, body); err != nil {
							b.Error(err)
							return
						}
						if c.size >= 1<<20 {
							_ = d.Delete(b.Context(), m.ID)
						}
					}
				})
			}
			group.Wait()
			report(b.N, "shards")
		})
	}
}

// benchShard writes a shard in the pieces in which an erasure coder makes it.
func benchShard(b *testing.B, d *disk.Disk, m core.ShardMeta, body []byte) error {
	w, err := d.Create(b.Context(), m, int64(len(body)))
	if err != nil {
		return err
	}
	for p := body; len(p) > 0; {
		n := min(len(p), 256<<10)
		if _, err := w.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	if err := w.Commit(b.Context()); err != nil {
		return err
	}
	return w.Close()
}

// BenchmarkShardRead reads a shard of 64 MiB from the page cache.
func BenchmarkShardRead(b *testing.B) {
	d := benchDisk(b, nil)
	m := core.ShardMeta{ID: core.NewShardID(core.NewExtentID(), 0)}
	body := noise(64 << 20)
	if err := benchShard(b, d, m, body); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		n    int
	}{{"256KiB", 256 << 10}, {"4KiB", 4 << 10}} {
		b.Run(c.name, func(b *testing.B) {
			r, err := d.Open(b.Context(), m.ID)
			if err != nil {
				b.Fatal(err)
			}
			p := make([]byte, c.n)
			b.SetBytes(int64(c.n))
			report := cpu(b)
			for i := range b.N {
				off := int64(i) * int64(c.n) % int64(len(body)-c.n)
				if _, err := r.ReadAt(b.Context(), p, off); err != nil {
					b.Fatal(err)
				}
			}
			report(b.N, "reads")
			_ = r.Close()
		})
	}
	b.Run("open", func(b *testing.B) {
		report := cpu(b)
		for range b.N {
			r, err := d.Open(b.Context(), m.ID)
			if err != nil {
				b.Fatal(err)
			}
			_ = r.Close()
		}
		report(b.N, "calls")
	})
}

const scanRows = 300_000

// filled is a disk with scanRows records of 200 bytes in 64 slots.
func filled(b *testing.B) *disk.Disk {
	d := benchDisk(b, nil)
	value := noise(200)
	seqs := [64]uint64{}
	for n := 0; n < scanRows; {
		var batches []core.SlotBatch
		for slot := range seqs {
			out := core.SlotBatch{Slot: core.SlotID(slot)}
			for range 50 {
				seqs[slot]++
				v := ver(seqs[slot])
				out.Append = append(out.Append, core.Entry{Version: v, Rows: []core.Row{
					{RowKey: core.RowKey{Bucket: 1, Key: benchKey(n)}, Value: value},
				}})
				out.Commit = &v
				n++
			}
			batches = append(batches, out)
		}
		if err := d.Apply(b.Context(), batches); err != nil {
			b.Fatal(err)
		}
	}
	return d
}

func benchKey(n int) string { return fmt.Sprintf("data/set-%03d/object-%08d.jpg", n%1000, n) }

// BenchmarkRows scans and looks up records.
func BenchmarkRows(b *testing.B) {
	d := filled(b)
	for _, keysOnly := range []bool{false, true} {
		b.Run(fmt.Sprintf("scan/keysonly=%v", keysOnly), func(b *testing.B) {
			rows := 0
			report := cpu(b)
			for range b.N {
				for _, err := range d.Scan(b.Context(), core.Scan{
					Bucket: 1, KeysOnly: keysOnly, Visible: func(core.SlotID) (core.Version, bool) { return ver(1 << 40), true },
				}) {
					if err != nil {
						b.Fatal(err)
					}
					rows++
				}
			}
			report(rows, "rows")
		})
	}
	slotOf := func(n int) core.SlotID { return core.SlotID(n / 50 % 64) }
	b.Run("get", func(b *testing.B) {
		report := cpu(b)
		for range b.N {
			n := rand.IntN(scanRows)
			if _, err := d.Get(b.Context(), slotOf(n), core.RowKey{Bucket: 1, Key: benchKey(n)}, ver(1<<40)); err != nil {
				b.Fatal(err)
			}
		}
		report(b.N, "calls")
	})
	b.Run("get/missing", func(b *testing.B) {
		report := cpu(b)
		for range b.N {
			n := rand.IntN(scanRows)
			if _, err := d.Get(b.Context(), slotOf(n), core.RowKey{Bucket: 1, Key: benchKey(n) + "x"}, ver(1<<40)); err == nil {
				b.Fatal("found")
			}
		}
		report(b.N, "calls")
	})
	b.Run("answer/missing", func(b *testing.B) {
		report := cpu(b)
		for range b.N {
			if _, _, err := d.Answer(b.Context(), 1, core.NewRequestID()); err == nil {
				b.Fatal("found")
			}
		}
		report(b.N, "calls")
	})
	b.Run("entries", func(b *testing.B) {
		rows := 0
		report := cpu(b)
		for range b.N {
			e, err := d.Entries(b.Context(), 1, 0, ver(1<<40), 1<<30)
			if err != nil {
				b.Fatal(err)
			}
			rows += len(e.List)
		}
		report(rows, "rows")
	})
}
