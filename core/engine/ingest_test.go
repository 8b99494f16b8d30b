package engine

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/shoalstore/shoal/core"
)

// slowHash takes nothing before it may.
type slowHash struct {
	hash.Hash
	may <-chan struct{}
}

func (h slowHash) Write(p []byte) (int, error) {
	<-h.may
	return h.Hash.Write(p)
}

// What is hashed beside takes no more memory than there is to be hashed, and a bounded
// amount if hashing is slower than reading.
func TestHashedBeside(t *testing.T) {
	for _, tt := range []struct {
		declared, size, block, blocks int
	}{
		{1000, 1000, 1000, 1},
		{-1, 1000, hashBlock, 1},
		{64 << 10, 64 << 10, 64 << 10, 1},
		{100 * hashBlock, 100 * hashBlock, hashBlock, hashDepth + 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			body := bytes.Repeat([]byte("0123456789"), tt.size/10+1)[:tt.size]
			in := newIngest(bytes.NewReader(body), &core.Bucket{}, &core.PutOptions{Size: int64(tt.declared)})
			may := make(chan struct{})
			for i, h := range in.hashes {
				in.hashes[i] = slowHash{h, may}
			}
			read := make(chan error)
			go func() {
				_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, in, make([]byte, hashBlock))
				read <- err
			}()
			synctest.Wait()
			if in.blocks != tt.blocks {
				t.Errorf("%d bytes: %d blocks, want %d", tt.size, in.blocks, tt.blocks)
			}
			close(may)
			if err := <-read; err != nil {
				t.Fatal(err)
			}
			b := in.block()
			if cap(b) != tt.block {
				t.Errorf("%d bytes: blocks of %d, want %d", tt.size, cap(b), tt.block)
			}
			in.spare <- b
			var rec core.Record
			if err := in.finish(&rec); err != nil {
				t.Fatal(err)
			}
			if sum := md5.Sum(body); rec.ETag != hex.EncodeToString(sum[:]) {
				t.Errorf("%d bytes: ETag %s", tt.size, rec.ETag)
			}
		})
	}
}

// What is in memory is hashed where it lies, and left alone once nobody stores it any
// more.
func TestHashedInMemory(t *testing.T) {
	for _, tt := range []struct {
		declared, size, limit int
	}{
		{0, 0, 1000},
		{1000, 1000, 4096}, // whole, by head
		{5000, 5000, 4096},
		{-1, 5000, 4096}, // begun by head
		{3 * hashBlock, 3 * hashBlock, 4096},
	} {
		body := bytes.Repeat([]byte("0123456789"), tt.size/10+1)[:tt.size]
		in := newIngest(newMemoryReader(body), &core.Bucket{}, &core.PutOptions{Size: int64(tt.declared)})
		head, whole, err := in.head(int64(tt.limit))
		got := bytes.NewBuffer(slices.Clone(head))
		if err == nil && !whole {
			_, err = io.Copy(got, in)
		}
		var rec core.Record
		if err = errors.Join(err, in.finish(&rec)); err != nil {
			t.Fatalf("%d bytes: %v", tt.size, err)
		}
		if sum := md5.Sum(body); rec.ETag != hex.EncodeToString(sum[:]) || rec.Size != int64(tt.size) || !bytes.Equal(got.Bytes(), body) {
			t.Errorf("%d bytes: ETag %s of %d bytes, %d read", tt.size, rec.ETag, rec.Size, got.Len())
		}
		if tt.declared > tt.limit && in.blocks != 0 {
			t.Errorf("%d bytes: copied in %d blocks", tt.size, in.blocks)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		in := newIngest(newMemoryReader(make([]byte, 5000)), &core.Bucket{}, &core.PutOptions{Size: 5000})
		may, closed := make(chan struct{}), make(chan struct{})
		in.hashes[0] = slowHash{in.hashes[0], may}
		if _, err := in.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		go func() {
			in.close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("given up while it is being hashed")
		default:
		}
		close(may)
		<-closed
	})
}
