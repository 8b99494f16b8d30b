package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/engine"
)

// TestRemoteLies: what a remote says wrongly breaks readers off, and nothing of
// it is kept.
func TestRemoteLies(t *testing.T) {
	for name, lie := range map[string]func(f *fakeRemote){
		"MD5": func(f *fakeRemote) {
			f.objects["key"].MD5 = make([]byte, 16)
		},
		"checksum": func(f *fakeRemote) {
			f.objects["key"].MD5 = nil
			f.objects["key"].Checksum = core.Checksum{Algorithm: "CRC32C", Value: "AAAAAA=="}
		},
		"short block": func(f *fakeRemote) {
			f.replaceBodies(func(_ string, g core.RemoteGet, _ *core.RemoteObject, body []byte) io.ReadCloser {
				if g.Offset == 5*fakeBlock {
					return io.NopCloser(bytes.NewReader(body[:100]))
				}
				return nil
			})
		},
		"long block": func(f *fakeRemote) {
			f.replaceBodies(func(_ string, g core.RemoteGet, _ *core.RemoteObject, body []byte) io.ReadCloser {
				if g.Offset == 5*fakeBlock {
					return io.NopCloser(io.MultiReader(bytes.NewReader(body), bytes.NewReader(body)))
				}
				return nil
			})
		},
		"other version": func(f *fakeRemote) {
			f.replaceBodies(func(_ string, g core.RemoteGet, o *core.RemoteObject, _ []byte) io.ReadCloser {
				if g.Offset == 5*fakeBlock {
					o.Version = "other"
				}
				return nil
			})
		},
		"other ETag": func(f *fakeRemote) {
			f.replaceBodies(func(_ string, g core.RemoteGet, o *core.RemoteObject, _ []byte) io.ReadCloser {
				if g.Offset == 5*fakeBlock {
					o.ETag = "other"
				}
				return nil
			})
		},
		"other size": func(f *fakeRemote) {
			f.replaceBodies(func(_ string, g core.RemoteGet, o *core.RemoteObject, _ []byte) io.ReadCloser {
				if g.Offset == 5*fakeBlock {
					o.Size++
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc, f, b := startRemote(t, 1, 2)
			want := remoteBytes(1, 70*fakeBlock) // so that a part was committed before
			f.set("key", want)
			lie(f)
			data, _, err := get(t, tc.nodes[0], b, "key", core.GetOptions{})
			if err == nil || len(data) >= len(want) || !bytes.Equal(data, want[:len(data)]) {
				t.Fatalf("got %d of %d bytes, %v", len(data), len(want), err)
			}
			waitFor(t, "everything to be dropped", func() error {
				if rec := present(t, tc.nodes[0], b, "key"); rec != nil {
					return fmt.Errorf("%d bytes are present", rec.StoredBytes())
				}
				return nil
			})
			f.replaceBodies(nil)
			f.set("key", want)
			mustGet(t, tc.nodes[0], b, "key", want)
		})
	}
}

// TestRemoteLieToSlowReader: the whole is verified, too, where a part of it was
// committed before its reader got there.
func TestRemoteLieToSlowReader(t *testing.T) {
	tc, f, b := startRemote(t, 1, 2)
	want := remoteBytes(1, 90*fakeBlock)
	f.set("key", want, func(o *core.RemoteObject) { o.MD5 = make([]byte, 16) })
	obj, err := tc.nodes[0].Objects().Get(t.Context(), b, "key", core.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = obj.Body.Close() }()
	if _, err := io.ReadFull(obj.Body, make([]byte, 59*fakeBlock)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a part to be committed", func() error {
		if rec := present(t, tc.nodes[0], b, "key"); rec == nil || rec.StoredBytes() < 60*fakeBlock {
			return errors.New("it is not")
		}
		return nil
	})
	if rest, err := io.ReadAll(obj.Body); err == nil {
		t.Errorf("got the other %d bytes", len(rest))
	}
}

// TestRemoteLieWithoutMemory: the whole is verified, too, where blocks had to go
// before their turn: from the disks, or from the remote where these are full.
func TestRemoteLieWithoutMemory(t *testing.T) {
	for name, reserve := range map[string]int64{"stored": 0, "disk full": 1 << 60} {
		for _, right := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, right=%v", name, right), func(t *testing.T) {
				tc, f, b := startRemoteOf(t, 1, 2, hooks{
					node: func(o *engine.Options) { o.RemoteMemory = 3 * fakeBlock },
					disk: func(o *disk.Options) { o.Reserve = max(o.Reserve, reserve) },
				})
				n := tc.nodes[0]
				want := remoteBytes(1, 20*fakeBlock)
				f.set("key", want, func(o *core.RemoteObject) {
					if !right {
						o.MD5 = make([]byte, 16)
					}
				})
				f.set("other", want)
				gate := make(chan int, 1)
				f.replaceBodies(func(key string, g core.RemoteGet, _ *core.RemoteObject, body []byte) io.ReadCloser {
					if key == "key" && g.Offset == 0 && g.Version == "" {
						return newGatedBody(body, gate)
					}
					return nil
				})
				gate <- 100
				obj, err := n.Objects().Get(t.Context(), b, "key", core.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = obj.Body.Close() }()
				if _, err := io.ReadFull(obj.Body, make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
				// Another object takes the memory of what came behind the first block.
				mustGet(t, n, b, "other", want)
				close(gate)
				rest, err := io.ReadAll(obj.Body)
				if right && (err != nil || !bytes.Equal(rest, want[100:])) {
					t.Errorf("got %d bytes, %v", len(rest), err)
				}
				if !right && err == nil {
					t.Errorf("got the other %d bytes", len(rest))
				}
				if right && reserve == 0 {
					awaitPresent(t, n, b, "key", int64(len(want)))
				}
				if !right {
					waitFor(t, "everything to be dropped", func() error {
						if rec := present(t, n, b, "key"); rec != nil {
							return fmt.Errorf("%d bytes are present", rec.StoredBytes())
						}
						return nil
					})
				}
			})
		}
	}
}

// TestRemoteLieInPieces: what came in pieces is verified before it is present whole.
func TestRemoteLieInPieces(t *testing.T) {
	for size, pieces := range map[int]int{8 * fakeBlock: 4, 8*fakeBlock - 7: 2} {
		tc, f, b := startRemote(t, 1, 2)
		n := tc.nodes[0]
		data := remoteBytes(1, size)
		f.set("key", data, func(o *core.RemoteObject) { o.MD5 = make([]byte, 16) })
		step := int64(8 * fakeBlock / pieces)
		for i := int64(0); i < int64(pieces); i++ {
			got, _, err := get(t, n, b, "key", core.GetOptions{Range: &core.ByteRange{Start: i * step, End: (i+1)*step - 1}})
			if err != nil || !bytes.Equal(got, data[i*step:min((i+1)*step, int64(size))]) {
				t.Fatalf("piece %d: %d bytes, %v", i, len(got), err)
			}
			if i < int64(pieces)-1 {
				awaitPresent(t, n, b, "key", (i+1)*step)
			}
		}
		waitFor(t, "everything to be dropped", func() error {
			if rec := present(t, n, b, "key"); rec != nil {
				return fmt.Errorf("%d bytes are present", rec.StoredBytes())
			}
			return nil
		})
	}
}

// TestRemoteChangesWhileRead: the rest of another version is never delivered.
func TestRemoteChangesWhileRead(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	was, is := remoteBytes(1, 30*fakeBlock), remoteBytes(2, 30*fakeBlock)
	f.set("key", was)
	gate := f.gate()
	obj, err := tc.nodes[1].Objects().Get(t.Context(), b, "key", core.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.set("key", is)
	close(gate)
	data, err := io.ReadAll(obj.Body)
	_ = obj.Body.Close()
	if err == nil || !bytes.Equal(data, was[:len(data)]) {
		t.Errorf("got %d bytes, %v", len(data), err)
	}
	mustGet(t, tc.nodes[1], b, "key", is)
}

// TestRemoteDiskFull: where nothing can be stored, reads go on all the same.
func TestRemoteDiskFull(t *testing.T) {
	tc, f, b := startRemoteOf(t, 1, 2, hooks{disk: func(o *disk.Options) { o.Reserve = 1 << 60 }})
	for i, size := range []int{5000, 30 * fakeBlock} {
		key, want := fmt.Sprint("key", i), remoteBytes(1, size)
		f.set(key, want)
		mustGet(t, tc.nodes[0], b, key, want)
		mustGet(t, tc.nodes[0], b, key, want)
		if rec := present(t, tc.nodes[0], b, key); rec != nil {
			t.Errorf("%d bytes are present", rec.StoredBytes())
		}
	}
}

// TestRemoteOwnerDies: a reader goes on at the slot's new owner, where it was.
func TestRemoteOwnerDies(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1, quick)
	was, is := remoteBytes(1, 60*fakeBlock), remoteBytes(2, 60*fakeBlock)
	for _, changed := range []bool{false, true} {
		key := fmt.Sprint("key", changed)
		f.set(key, was)
		owner, other := tc.ownerOf(b, key)
		obj, err := other.Objects().Get(t.Context(), b, key, core.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, fakeBlock+10)
		if _, err := io.ReadFull(obj.Body, first); err != nil {
			t.Fatal(err)
		}
		tc.net.cutOff(owner.ID())
		if changed {
			f.set(key, is)
		}
		rest, err := io.ReadAll(obj.Body)
		_ = obj.Body.Close()
		data := append(first, rest...)
		switch {
		case !changed && (err != nil || !bytes.Equal(data, was)):
			t.Errorf("got %d bytes, %v", len(data), err)
		case changed && (err == nil || !bytes.Equal(data, was[:len(data)])):
			t.Errorf("of a changed object: got %d bytes, %v", len(data), err)
		}
		if changed {
			mustGet(t, other, b, key, is)
		}
		tc.net.mend(owner.ID())
		for _, n := range tc.nodes {
			waitFor(t, "node to be ready", n.Ready)
		}
	}
}
