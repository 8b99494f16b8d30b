package clients

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// Rclone copies, compares, synchronises and removes with rclone.
func Rclone(t *testing.T, g Target) {
	p := program{
		path: find(t, "rclone"),
		args: []string{"--config", "", "--retries", "1", "--low-level-retries", "1", "--s3-upload-cutoff", "6M", "--s3-chunk-size", "5M"},
		env: []string{
			"RCLONE_CONFIG_X_TYPE=s3", "RCLONE_CONFIG_X_PROVIDER=Other", "RCLONE_CONFIG_X_ENDPOINT=" + g.URL,
			"RCLONE_CONFIG_X_ACCESS_KEY_ID=" + g.AccessKey, "RCLONE_CONFIG_X_SECRET_ACCESS_KEY=" + g.Secret,
			"RCLONE_CONFIG_X_REGION=" + g.region(),
		},
	}
	f := files(16 << 20)
	f["dir/new\nline"] = []byte("newline")
	dir, bucket := f.write(t), "x:"+newName("rclone")
	p.run(t, "mkdir", bucket)
	if out := p.run(t, "lsf", "x:"); !slices.Contains(lines(out), strings.TrimPrefix(bucket, "x:")+"/") {
		t.Errorf("lsf: got %q, want %s among them", out, bucket)
	}
	p.run(t, "copy", dir, bucket+"/one")
	p.run(t, "check", "--download", dir, bucket+"/one")
	p.run(t, "check", dir, bucket+"/one") // by size and MD5
	equalLines(t, "lsf", lines(p.run(t, "lsf", "-R", "--files-only", bucket+"/one")), shown(f.names()))
	if out := p.run(t, "lsf", bucket+"/one"); !slices.Equal(lines(out), []string{"dir/", "empty", "large.bin", "plain.txt"}) {
		t.Errorf("lsf of a folder: got %q", out)
	}
	if out := p.run(t, "cat", "--offset", "2", "--count", "2", bucket+"/one/plain.txt"); out != "ai" {
		t.Errorf("cat: got %q, want \"ai\"", out)
	}
	if out := p.run(t, "size", "--json", bucket+"/one"); !strings.Contains(out, `"count":10`) {
		t.Errorf("size: got %s", out)
	}

	// On the server, the large one in parts.
	p.run(t, "copy", "--s3-copy-cutoff", "6M", bucket+"/one", bucket+"/two")
	back := t.TempDir()
	p.run(t, "copy", bucket+"/two", back)
	f.want(t, "copied back", back)

	fewer := maps.Clone(f)
	delete(fewer, "plain.txt")
	fewer["dir/a b"] = []byte("changed")
	p.run(t, "sync", fewer.write(t), bucket+"/two")
	back = t.TempDir()
	p.run(t, "sync", bucket+"/two", back)
	fewer.want(t, "synchronised back", back)

	p.run(t, "moveto", bucket+"/one/plain.txt", bucket+"/moved.txt")
	if out := p.run(t, "cat", bucket+"/moved.txt"); out != "plain" {
		t.Errorf("cat: got %q", out)
	}
	p.run(t, "deletefile", bucket+"/moved.txt")
	p.run(t, "backend", "cleanup", bucket)
	p.run(t, "purge", bucket)
	p.fails(t, "not found", "lsf", bucket)
}

// shown are names as rclone shows them.
func shown(names []string) (out []string) {
	for _, n := range names {
		out = append(out, strings.ReplaceAll(n, "\n", "␊"))
	}
	return sorted(out)
}
