package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// small is a wrapper of the program that runs servers with a small file system
// of their own in the place of their first disk.
const small = `#!/bin/sh
set -e
if [ "$1" != server ]; then exec "$SMALL_BIN" "$@"; fi
disk=$(sed -n 's/.*path: "\(.*\)"/\1/p' "$3" | head -1)
export disk
exec unshare $SMALL_UNSHARE sh -ec '
	mkdir "$disk.kept"
	cp -a "$disk/." "$disk.kept"
	mount -t tmpfs -o size=$SMALL_SIZE tmpfs "$disk"
	cp -a "$disk.kept/." "$disk"
	rm -r "$disk.kept"
	exec "$SMALL_BIN" "$@"' sh "$@"
`

// smallDisk returns a program that runs servers whose first disk has that size.
func smallDisk(t *testing.T, size string) (program string) {
	t.Helper()
	flags := "-m"
	if os.Getuid() != 0 {
		flags = "-Urm"
	}
	dir := t.TempDir()
	try := exec.Command("unshare", flags, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir)
	if out, err := try.CombinedOutput(); err != nil {
		t.Logf("unshare %s mount: %v: %s", flags, err, out)
		t.Skip("file systems cannot be mounted here")
	}
	t.Setenv("SMALL_BIN", os.Getenv(binVar))
	t.Setenv("SMALL_UNSHARE", flags)
	t.Setenv("SMALL_SIZE", size)
	program = filepath.Join(dir, "shoal")
	if err := os.WriteFile(program, []byte(small), 0o700); err != nil {
		t.Fatal(err)
	}
	return program
}

// inside is a file of a server's own mount namespace.
func (c *cluster) inside(node, file string) string {
	return filepath.Join("/proc", strconv.Itoa(c.node(node).Process.PID), "root", file)
}

// status is the HTTP status and the code of an S3 client's error; 0 without.
func status(err error) (int, string) {
	if err == nil {
		return 0, ""
	}
	var r *awshttp.ResponseError
	var a smithy.APIError
	if !errors.As(err, &r) || !errors.As(err, &a) {
		return -1, err.Error()
	}
	return r.HTTPStatusCode(), a.ErrorCode()
}

// TestFullDisk fills a disk of a real node with objects and with foreign bytes:
// what has no room is refused and leaves nothing, the other disk takes what one
// disk can take, reads go on, and so do writes once there is room again.
func TestFullDisk(t *testing.T) {
	c := startClusterOf(t, smallDisk(t, "48m"), 1, 2)
	k := c.s3("n1", 30*time.Second, 0)
	c.bucket("alone", "none")
	c.bucket("twice", "mirror-2")
	n := c.node("n1")
	d1, d2 := c.inside("n1", n.Disks[0].Path), n.Disks[1].Path
	stored := map[[2]string][]byte{}
	put := func(bucket, key string, data []byte) (int, string) {
		t.Helper()
		_, err := k.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(data)})
		if err == nil {
			stored[[2]string{bucket, key}] = data
		}
		return status(err)
	}
	wantFull := func(what string, code int, why string) {
		t.Helper()
		if code != http.StatusInsufficientStorage || why != "InsufficientStorage" {
			t.Errorf("%s: got %d %s, want 507 InsufficientStorage", what, code, why)
		}
	}
	wantStored := func(what string, code int, why string) {
		t.Helper()
		if code != 0 {
			t.Errorf("%s: got %d %s", what, code, why)
		}
	}
	check := func(when string) {
		t.Helper()
		for at, want := range stored {
			out, err := k.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &at[0], Key: &at[1]})
			if err != nil {
				t.Errorf("%s: get %v: %v", when, at, err)
				continue
			}
			got, err := io.ReadAll(out.Body)
			_ = out.Body.Close()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: get %v: %d bytes, %v", when, at, len(got), err)
			}
		}
		listed := 0
		for _, b := range []string{"alone", "twice"} {
			out, err := k.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b})
			if err != nil {
				t.Fatalf("%s: list: %v", when, err)
			}
			listed += len(out.Contents)
		}
		if listed != len(stored) {
			t.Errorf("%s: %d objects are listed, want %d", when, listed, len(stored))
		}
		for _, d := range []string{d1, d2} {
			if left := top(t, filepath.Join(d, "data", "tmp")); left != "" {
				t.Errorf("%s: %s is left in %s/data/tmp", when, left, d)
			}
		}
	}

	full := false
	for i := 0; !full; i++ {
		code, why := put("twice", fmt.Sprint("big", i), fill(uint64(i), 1<<20))
		if full = code != 0; full {
			wantFull("the first that has no room", code, why)
		} else if i > 60 {
			t.Fatal("a disk of 48 MiB has taken more than that")
		}
	}
	code, why := put("twice", "big0", fill(100, 1<<20))
	wantFull("a replacement", code, why)
	for i := range 8 {
		code, why := put("alone", fmt.Sprint("big", i), fill(uint64(200+i), 1<<20))
		wantStored("what the other disk can take", code, why)
	}
	check("full of objects")

	// Not even a record has room.
	foreign := filepath.Join(d1, "foreign")
	poll(t, 20*time.Second, "a small object is refused", func(context.Context) error {
		writeFull(t, foreign) // again, since the disk's own housekeeping frees some
		if code, why = put("twice", "small", fill(300, 10_000)); code == 0 {
			return errors.New("it was taken")
		}
		return nil
	})
	wantFull("a small object", code, why)
	check("full to the last byte")
	removeAll(t, foreign)
	poll(t, 20*time.Second, "small objects are taken again", func(context.Context) error {
		if code, why := put("twice", "small", fill(300, 10_000)); code != 0 {
			return fmt.Errorf("%d %s", code, why)
		}
		return nil
	})

	for i := range 10 {
		at := [2]string{"twice", fmt.Sprint("big", i)}
		if _, err := k.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &at[0], Key: &at[1]}); err != nil {
			t.Fatalf("delete %v: %v", at, err)
		}
		delete(stored, at)
	}
	poll(t, 30*time.Second, "large objects are taken again", func(context.Context) error {
		if code, why := put("twice", "again", fill(400, 4<<20)); code != 0 {
			return fmt.Errorf("%d %s", code, why)
		}
		return nil
	})
	c.waitHealthy(60 * time.Second)
	check("with room again")
}

// writeFull writes a file until there is no space left.
func writeFull(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, n := range []int{64 << 10, 4 << 10, 1} {
		for err == nil {
			_, err = f.Write(make([]byte, n))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
}
