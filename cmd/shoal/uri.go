package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// parseURI reads an argument that names something in the cluster. What looks like
// a file of this machine is said to be one: it is an easy slip.
func parseURI(arg string) (core.URI, error) {
	if isLocal(arg) {
		return core.URI{}, usagef("%q: is a path on this machine; want a bucket or an object, as shoal://BUCKET/KEY", arg)
	}
	u, err := core.ParseURI(arg)
	if err != nil && !strings.Contains(arg, "://") && exists(arg) {
		return u, usagef("%w\n%s is a file here: ./%s names it in \"shoal cp\"", err, arg, arg)
	}
	return u, err
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// localFile reads an argument that names a file of this machine.
func localFile(arg string) (string, error) {
	if strings.Contains(arg, "://") {
		return "", usagef("%q: want a file on this machine; within the cluster copies \"shoal cp\"", arg)
	}
	return arg, nil
}

// bucketURI reads an argument that names a bucket and no key.
func bucketURI(arg string) (core.BucketName, error) {
	name := arg
	if !strings.HasSuffix(arg, "://") {
		name = strings.TrimSuffix(arg, "/")
	}
	u, err := parseURI(name)
	if err != nil {
		return core.BucketName{}, err
	}
	if u.Key != "" {
		return core.BucketName{}, usagef("%q: want a bucket, as %s", arg, u.Bucket)
	}
	return u.Bucket, nil
}

// objectURI reads an argument that names an object.
func objectURI(arg string) (core.URI, error) {
	u, err := parseURI(arg)
	if err != nil {
		return u, err
	}
	if u.Key == "" {
		return u, usagef("%q: want an object, as %s/KEY", arg, u.Bucket)
	}
	return u, nil
}

// providerOf reads "s3", "s3:" and "s3://": all buckets of a provider. "s3" and
// "gs" are too short to be buckets of Shoal's own; http, https and file, which
// are not, need the colon.
func providerOf(arg string) (core.Provider, bool) {
	short := strings.TrimSuffix(strings.TrimSuffix(arg, "//"), ":")
	switch p := core.Provider(short); p {
	case core.Shoal, core.S3, core.GCS:
		return p, true
	case core.HTTP, core.HTTPS, core.File:
		return p, short != arg
	}
	return "", false
}

// isLocal says whether an argument that might be either is a path of the
// client's side: what is written as a path, or "-".
func isLocal(arg string) bool {
	return arg == "-" || arg == "." || arg == ".." ||
		strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, "./") || strings.HasPrefix(arg, "../") || strings.HasPrefix(arg, "~/")
}

// nodeArg reads NODE.
func nodeArg(arg string) (core.NodeID, error) {
	n := core.NodeID(arg)
	if err := n.Validate(); err != nil {
		return n, err
	}
	return n, nil
}

// diskArg reads NODE/DISK.
func diskArg(arg string) (core.NodeID, string, error) {
	node, disk, ok := strings.Cut(arg, "/")
	if !ok || disk == "" {
		return "", "", usagef("%q: want NODE/DISK, as n1/d1", arg)
	}
	n, err := nodeArg(node)
	return n, disk, err
}

// at puts the name of what an error is about before it.
func at(u core.URI, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", u, err)
}
