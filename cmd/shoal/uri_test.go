package main

import (
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

func TestProviderOf(t *testing.T) {
	for arg, want := range map[string]core.Provider{
		"s3": core.S3, "s3:": core.S3, "s3://": core.S3, "gs": core.GCS, "shoal": core.Shoal,
		"http:": core.HTTP, "https://": core.HTTPS, "file:": core.File,
		// Names of own buckets.
		"http": "", "https": "", "file": "",
		"ftp://": "", "s3://b": "",
	} {
		if got, ok := providerOf(arg); ok != (want != "") || ok && got != want {
			t.Errorf("%s: got %q, %v; want %q", arg, got, ok, want)
		}
	}
}

func TestPatienceOf(t *testing.T) {
	for _, c := range []struct {
		command, args string
		want          time.Duration
	}{
		{"cat", "s3://bkt/k", remotePatience},
		{"put", "file.bin gs://bkt/k", remotePatience},
		{"get", "https://host/k .", remotePatience},
		{"cat", "shoal://bkt/k", 0},
		{"put", "s3 shoal://bkt/k", 0},
		{"cp", "s3://aaa gs://bbb", 0},
		{"ls", "s3://bkt", remotePatience},
		{"ls", "s3", 0},
		{"cat", "", 0},
	} {
		if got := patienceOf(c.command, strings.Fields(c.args)); got != c.want {
			t.Errorf("%s %s: %v, want %v", c.command, c.args, got, c.want)
		}
	}
}
