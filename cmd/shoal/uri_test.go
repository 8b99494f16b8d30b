package main

import (
	"testing"

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
