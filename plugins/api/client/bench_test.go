package client_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/apitest"
	"github.com/shoalstore/shoal/plugins/api/client"
	"github.com/shoalstore/shoal/plugins/api/server"
)

// manyObjects is a bucket service that lists and does nothing else.
type manyObjects struct {
	server.BucketService
	n int
}

func (m manyObjects) Objects(context.Context, core.BucketName, server.ListOptions) iter.Seq2[api.Object, error] {
	return func(yield func(api.Object, error) bool) {
		o := api.Object{Size: 131072, ETag: "0cc175b9c0f1b6a831c399e269772661", Cached: true, Modified: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
		for i := range m.n {
			o.Name = fmt.Sprintf("train/shard-%08d.tar", i)
			if !yield(o, nil) {
				return
			}
		}
	}
}

// BenchmarkList lists 100,000 keys through HTTP, server and client in one
// process.
func BenchmarkList(b *testing.B) {
	const keys = 100_000
	s := httptest.NewServer(server.New(server.Services{Buckets: manyObjects{n: keys}}, slog.New(slog.DiscardHandler)))
	defer s.Close()
	c, err := client.New(client.Options{Endpoints: []string{s.URL}, AccessKey: apitest.AccessKey, SecretKey: apitest.SecretKey})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	name := core.BucketName{Provider: core.Shoal, Name: "data"}
	for b.Loop() {
		n := 0
		for _, err := range c.List(b.Context(), name, client.ListOptions{}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != keys {
			b.Fatalf("got %d keys", n)
		}
	}
	b.ReportMetric(keys*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
}

// BenchmarkTransfer moves an object of 64 MiB each way.
func BenchmarkTransfer(b *testing.B) {
	f := apitest.New(b, 1)
	c := connect(b, f, func(o *client.Options) { o.PartSize = 16 << 20 })
	bucket(b, c)
	data := random(64<<20, 1)
	put(b, c, "k", data)
	b.Run("upload", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			put(b, c, "k", data)
		}
	})
	b.Run("download", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		w := file{b: make([]byte, len(data))}
		for b.Loop() {
			if _, err := c.Download(b.Context(), "data", "k", &w, client.TransferOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
