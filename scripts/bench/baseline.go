package main

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// serveBaseline is the simplest durable object server there is: a file per
// object.
func serveBaseline(ctx context.Context, addr, dir string) error {
	v := sigv4.NewVerifier(sigv4.Options{
		Region: "us-east-1", Now: time.Now,
		Lookup: func(key string) (string, bool) { return config.DevSecretKey, key == config.DevAccessKey },
	})
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: &fileHandler{v: v, dir: dir}, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type fileHandler struct {
	v   *sigv4.Verifier
	dir string
}

func (h *fileHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	auth, err := h.v.Verify(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	body, _, err := auth.Body(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	defer body.Release()
	name := filepath.Join(h.dir, strings.ReplaceAll(strings.TrimPrefix(r.URL.Path, "/"), "/", "_"))
	switch r.Method {
	case http.MethodPut:
		etag, err := put(name, body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("ETag", `"`+etag+`"`)
	case http.MethodGet:
		f, err := os.Open(name)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		defer func() { _ = f.Close() }()
		http.ServeContent(w, r, "", time.Time{}, f)
	default:
		http.Error(w, "no such method", http.StatusMethodNotAllowed)
	}
}

// put writes a file durably: temporary file, fdatasync, rename, fsync of the
// directory.
func put(name string, body io.Reader) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(name), "put-*")
	if err != nil {
		return "", err
	}
	sum := md5.New()
	_, err = io.Copy(io.MultiWriter(f, sum), body)
	if err == nil {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return "", err
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return "", fmt.Errorf("directory: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
