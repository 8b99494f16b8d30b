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

// TestRemoteNoRanges: a remote that knows no ranges is read once through, whatever part
// is wanted, and what passes is kept.
func TestRemoteNoRanges(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1, func(o *engine.Options) { o.RemoteMemory = 6 * fakeBlock })
	f.noRanges = true
	const blocks = 24
	for i, size := range []int{10, fakeBlock, fakeBlock + 1, blocks * fakeBlock} {
		key, want := fmt.Sprint("key", i), remoteBytes(uint64(i), size)
		f.set(key, want)
		owner, other := tc.ownerOf(b, key)
		f.reset()
		mustGet(t, other, b, key, want)
		if n := f.count("get"); n > 2 || f.read > int64(size+fakeBlock) {
			t.Errorf("%d bytes took %d GETs of %d bytes", size, n, f.read)
		}
		awaitPresent(t, owner, b, key, int64(size))
	}

	want := remoteBytes(9, blocks*fakeBlock)
	f.set("part", want)
	owner, other := tc.ownerOf(b, "part")
	f.reset()
	part := func(n *engine.Node, from, to int64) {
		t.Helper()
		got, _, err := get(t, n, b, "part", core.GetOptions{Range: &core.ByteRange{Start: from, End: to - 1}})
		if err != nil || !bytes.Equal(got, want[from:to]) {
			t.Fatalf("%d to %d: %d bytes, %v", from, to, len(got), err)
		}
	}
	part(other, 10*fakeBlock+7, 11*fakeBlock+7)
	waitFor(t, "what has passed to be kept", func() error {
		if rec := present(t, owner, b, "part"); rec == nil || len(rec.MissingRuns(0, 12*fakeBlock)) > 0 {
			return errors.New("it is not")
		}
		return nil
	})
	if n := f.count("get"); n > 2 || f.read > 25*fakeBlock {
		t.Errorf("%d GETs of %d bytes for 12 blocks, the first 10 twice", n, f.read)
	}
	f.reset()
	part(owner, 3*fakeBlock, 4*fakeBlock)
	part(other, 0, 12*fakeBlock)
	if n := f.count(); n > 0 {
		t.Errorf("%d requests for what has passed", n)
	}
	mustGet(t, other, b, "part", want)
	awaitPresent(t, owner, b, "part", int64(len(want)))
	if f.read > 40*fakeBlock {
		t.Errorf("%d bytes were read for the rest of 12 blocks", f.read)
	}
}

// TestRemoteNoRangesNoSpace: it is read once through even if nothing can be kept and
// there is little memory.
func TestRemoteNoRangesNoSpace(t *testing.T) {
	tc, f, b := startRemoteOf(t, 1, 2, hooks{
		node: func(o *engine.Options) { o.RemoteMemory = 4 * fakeBlock },
		disk: func(o *disk.Options) { o.Reserve = 1 << 60 },
	})
	f.noRanges = true
	want := remoteBytes(1, 30*fakeBlock)
	f.set("key", want)
	mustGet(t, tc.nodes[0], b, "key", want)
	if f.read > 100*fakeBlock { // it may begin anew when it is found that there is no space
		t.Errorf("%d GETs of %d blocks for 30", f.count("get"), f.read/fakeBlock)
	}
	if rec := present(t, tc.nodes[0], b, "key"); rec != nil {
		t.Errorf("%d bytes are present", rec.StoredBytes())
	}

	// One who reads slowly keeps nobody from what has passed.
	obj, err := tc.nodes[0].Objects().Get(t.Context(), b, "key", core.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = obj.Body.Close() }()
	if _, err := io.ReadFull(obj.Body, make([]byte, 10*fakeBlock)); err != nil {
		t.Fatal(err)
	}
	mustGet(t, tc.nodes[0], b, "key", want)
	if rest, err := io.ReadAll(obj.Body); err != nil || !bytes.Equal(rest, want[10*fakeBlock:]) {
		t.Errorf("the slow reader got %d bytes more, %v", len(rest), err)
	}
}

// TestRemoteNoRangesLies: what ends early, late or as something else is no object.
func TestRemoteNoRangesLies(t *testing.T) {
	tc, f, b := startRemote(t, 3, 1)
	f.noRanges = true
	for name, change := range map[string]func(o *core.RemoteObject, body []byte) []byte{
		"short": func(_ *core.RemoteObject, body []byte) []byte { return body[:len(body)-1] },
		"long":  func(_ *core.RemoteObject, body []byte) []byte { return append(bytes.Clone(body), 0) },
		"other": func(_ *core.RemoteObject, body []byte) []byte {
			return append(bytes.Clone(body[:len(body)-1]), body[len(body)-1]+1)
		},
		"version": func(o *core.RemoteObject, body []byte) []byte { o.Version = "v0"; return body },
	} {
		t.Run(name, func(t *testing.T) {
			want := remoteBytes(1, 5*fakeBlock)
			f.set(name, want)
			f.replaceBodies(func(_ string, g core.RemoteGet, o *core.RemoteObject, body []byte) io.ReadCloser {
				if g.Length >= 0 {
					return nil
				}
				return io.NopCloser(bytes.NewReader(change(o, body)))
			})
			owner, other := tc.ownerOf(b, name)
			if got, _, err := get(t, other, b, name, core.GetOptions{}); err == nil {
				t.Errorf("%d bytes were taken for whole", len(got))
			}
			f.replaceBodies(nil)
			mustGet(t, other, b, name, want)
			awaitPresent(t, owner, b, name, int64(len(want)))
		})
	}
}
