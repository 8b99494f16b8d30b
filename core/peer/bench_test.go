package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memstore"
)

// cpu is the processor time of this process, that is of both ends.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perCPU reports processor time per operation, and with size, in bytes, the
// throughput per processor second.
func perCPU(b *testing.B, began time.Duration, size int) {
	b.Helper()
	used := cpu(b) - began
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/op")
	if size > 0 {
		b.ReportMetric(float64(size)*float64(b.N)/1e6/used.Seconds(), "MB/cpu-s")
	}
}

func production(o *Options) {
	o.Ping, o.Timeout = 0, 0 // the defaults
}

func BenchmarkMessages(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 128 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d := &directory{}
			var got atomic.Int64
			a := startNode(b, d, "n1", setup{options: production})
			n2 := startNode(b, d, "n2", setup{options: production, transport: func(t *Transport) { t.handler = counter{&got} }})
			_ = n2
			a.Send("n2", nil)
			await(b, "connection", func() bool { return got.Load() == 1 })
			msg := make([]byte, size)
			window := int64(max(1, 8<<20/size)) // in flight
			b.SetBytes(int64(size))
			began := cpu(b)
			b.ResetTimer()
			for i := range int64(b.N) {
				for i-got.Load() > window {
					_ = (clock{}).Wait(b.Context(), 50*time.Microsecond)
				}
				a.Send("n2", msg)
			}
			await(b, "all messages", func() bool { return got.Load() == int64(b.N)+1 })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
			perCPU(b, began, 0)
		})
	}
}

type counter struct{ n *atomic.Int64 }

func (c counter) Message(core.NodeID, []byte) { c.n.Add(1) }
func (c counter) Peer(core.NodeID, bool)      {}

func BenchmarkCall(b *testing.B) {
	for _, size := range []int{100, 16 << 10} {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("%d/callers=%d", size, callers), func(b *testing.B) {
				d := &directory{}
				a := startNode(b, d, "n1", setup{options: production})
				startNode(b, d, "n2", setup{options: production, transport: echoServer})
				req := make([]byte, size)
				if _, err := a.Call(b.Context(), "n2", 1, req); err != nil {
					b.Fatal(err)
				}
				began := cpu(b)
				b.ResetTimer()
				b.SetParallelism((callers + 1) / 2) // two processors
				call := func() {
					if _, err := a.Call(b.Context(), "n2", 1, req); err != nil {
						b.Error(err)
					}
				}
				if callers == 1 {
					for range b.N {
						call()
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							call()
						}
					})
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
				perCPU(b, began, 0)
			})
		}
	}
}

const benchStream = 256 << 20

// BenchmarkLoopback is what the kernel alone takes to move the bytes.
func BenchmarkLoopback(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, bulkSize))
		done <- errors.Join(err, c.Close())
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	p := random(bulkSize)
	b.SetBytes(benchStream)
	began := cpu(b)
	b.ResetTimer()
	for range b.N {
		for n := 0; n < benchStream; n += len(p) {
			if _, err := c.Write(p); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := errors.Join(c.Close(), <-done, l.Close()); err != nil {
		b.Fatal(err)
	}
	perCPU(b, began, benchStream)
}

// direct runs two nodes without a proxy in between.
func direct(b *testing.B, o func(*Options), vault *bank) *node {
	d := &directory{}
	a := startNode(b, d, "n1", setup{options: o})
	startNode(b, d, "n2", setup{options: o, transport: func(tr *Transport) { tr.HandleStream(bankService, vault) }})
	return a
}

func BenchmarkStreamWrite(b *testing.B) {
	cfg := selfSigned(b)
	for name, o := range map[string]func(*Options){
		"plain": production,
		"TLS":   func(o *Options) { production(o); o.TLS = cfg },
	} {
		for _, piece := range []int{64 << 10, 256 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, piece>>10), func(b *testing.B) {
				a := direct(b, o, &bank{drop: true})
				p := random(piece)
				b.SetBytes(benchStream)
				began := cpu(b)
				b.ResetTimer()
				for range b.N {
					w, err := a.OpenWrite(b.Context(), "n2", bankService, []byte("x"), true)
					if err != nil {
						b.Fatal(err)
					}
					for n := 0; n < benchStream; n += piece {
						if _, err := w.Write(p); err != nil {
							b.Fatal(err)
						}
					}
					if _, err := w.Commit(b.Context()); err != nil {
						b.Fatal(err)
					}
					_ = w.Close()
				}
				perCPU(b, began, benchStream)
			})
		}
	}
}

// blank is a source of bytes that costs nothing.
type blank struct{ ReadStream }

func (blank) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), benchStream-off))
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func BenchmarkStreamRead(b *testing.B) {
	cfg := selfSigned(b)
	tls := func(o *Options) { production(o); o.TLS = cfg }
	copied := func(s ReadStream) ReadStream { return blank{s} }
	for _, test := range []struct {
		name string
		o    func(*Options)
		wrap func(*testing.B) func(ReadStream) ReadStream
	}{
		{"plain", production, func(*testing.B) func(ReadStream) ReadStream { return copied }},
		{"sendfile", production, benchFile},
		{"TLS", tls, func(*testing.B) func(ReadStream) ReadStream { return copied }},
	} {
		for _, piece := range []int{256 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", test.name, piece>>10), func(b *testing.B) {
				vault := &bank{wrapSource: test.wrap(b)}
				vault.put("x", nil)
				a := direct(b, test.o, vault)
				p := make([]byte, piece)
				b.SetBytes(benchStream)
				began := cpu(b)
				b.ResetTimer()
				for range b.N {
					r, err := a.OpenRead(b.Context(), "n2", bankService, []byte("x"), Range{})
					if err != nil {
						b.Fatal(err)
					}
					for off := int64(0); off < benchStream; off += int64(piece) {
						if n, err := r.ReadAt(b.Context(), p, off); n < piece {
							b.Fatal(n, err)
						}
					}
					_ = r.Close()
				}
				perCPU(b, began, benchStream)
			})
		}
	}
}

// benchFile serves a file that is in the page cache.
func benchFile(b *testing.B) func(ReadStream) ReadStream {
	name := filepath.Join(b.TempDir(), "data")
	data := random(1 << 20)
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	for range benchStream / len(data) {
		if _, err := f.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { _ = f.Close() })
	return func(s ReadStream) ReadStream { return fileSource{s, f, benchStream} }
}

func BenchmarkShard(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		for _, op := range []string{"write", "read"} {
			b.Run(fmt.Sprintf("%s/%dKiB", op, size>>10), func(b *testing.B) {
				disk := memstore.New(clock{})
				d := &directory{}
				a := startNode(b, d, "n1", setup{options: production})
				startNode(b, d, "n2", setup{options: production, transport: func(tr *Transport) {
					tr.ServeStores(func(core.DiskID) (core.Store, error) { return disk, nil })
				}})
				st := a.Store("n2", testDisk)
				m, data := testMeta(), random(size)
				if err := putShard(b.Context(), st, m, data, int64(size)); err != nil {
					b.Fatal(err)
				}
				buf := make([]byte, size)
				b.SetBytes(int64(size))
				began := cpu(b)
				b.ResetTimer()
				for range b.N {
					if op == "write" {
						w, err := st.Create(b.Context(), m, int64(size))
						if err != nil {
							b.Fatal(err)
						}
						if _, err := w.Write(data); err != nil {
							b.Fatal(err)
						}
						if err := w.Commit(b.Context()); err != nil {
							b.Fatal(err)
						}
						continue
					}
					r, err := st.Open(b.Context(), m.ID)
					if err != nil {
						b.Fatal(err)
					}
					if n, err := r.ReadAt(b.Context(), buf, 0); n < size && !errors.Is(err, io.EOF) {
						b.Fatal(n, err)
					}
					_ = r.Close()
				}
				perCPU(b, began, 0)
			})
		}
	}
}
