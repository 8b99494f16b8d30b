package clients

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// AWS works with the AWS command line, version 1 or 2.
func AWS(t *testing.T, g Target) {
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("[default]\ns3 =\n  multipart_threshold = 6MB\n  multipart_chunksize = 5MB\n  addressing_style = path\n  signature_version = s3v4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := program{
		path: find(t, "aws"),
		args: []string{"--endpoint-url", g.URL, "--output", "json", "--no-cli-pager"},
		env: []string{
			"AWS_ACCESS_KEY_ID=" + g.AccessKey, "AWS_SECRET_ACCESS_KEY=" + g.Secret, "AWS_REGION=" + g.region(), "AWS_DEFAULT_REGION=" + g.region(),
			"AWS_CONFIG_FILE=" + config, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull, "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1",
		},
	}
	if out, err := p.try(t, "--version"); err != nil || strings.HasPrefix(out, "aws-cli/1.") {
		p.args = p.args[:4] // version 1 has no pager
	}
	f := files(12 << 20)
	name := newName("aws")
	dir, bucket := f.write(t), "s3://"+name
	p.run(t, "s3", "mb", bucket)
	if out := p.run(t, "s3", "ls"); !strings.Contains(out, name) {
		t.Errorf("ls: got %q, want %s among them", out, name)
	}
	p.run(t, "s3", "sync", "--no-progress", dir, bucket+"/one")
	if out := p.run(t, "s3", "sync", "--no-progress", dir, bucket+"/one"); out != "" {
		t.Errorf("sync again: got %q, want nothing to do", out)
	}
	var got []string
	for _, l := range lines(p.run(t, "s3", "ls", "--recursive", bucket)) {
		if _, key, ok := strings.Cut(l, "one/"); ok {
			got = append(got, key)
		}
	}
	equalLines(t, "ls --recursive", sorted(got), f.names())
	p.run(t, "s3", "cp", "--no-progress", "--recursive", bucket+"/one", bucket+"/two")
	back := t.TempDir()
	p.run(t, "s3", "cp", "--no-progress", "--recursive", bucket+"/two", back)
	f.want(t, "copied back", back)
	p.run(t, "s3", "mv", "--no-progress", bucket+"/two/dir/a+b%20c", bucket+"/moved +%")

	one := filepath.Join(t.TempDir(), "one")
	p.run(t, "s3api", "get-object", "--bucket", name, "--key", "moved +%", "--range", "bytes=0-3", one)
	tree{"one": []byte("plus")}.want(t, "range", filepath.Dir(one))
	for _, algorithm := range []string{"CRC32", "SHA1", "SHA256"} {
		out := p.run(t, "s3api", "put-object", "--bucket", name, "--key", "sum", "--body", filepath.Join(dir, "plain.txt"),
			"--checksum-algorithm", algorithm, "--metadata", "colour=blue")
		if !strings.Contains(out, `"Checksum`+algorithm+`"`) {
			t.Errorf("put-object with %s: got %s", algorithm, out)
		}
		p.run(t, "s3api", "get-object", "--bucket", name, "--key", "sum", "--checksum-mode", "ENABLED", one)
		tree{"one": f["plain.txt"]}.want(t, algorithm, filepath.Dir(one))
	}
	if out := p.run(t, "s3api", "head-object", "--bucket", name, "--key", "sum"); !strings.Contains(out, `"colour": "blue"`) {
		t.Errorf("head-object: got %s", out)
	}
	signed := strings.TrimSpace(p.run(t, "s3", "presign", "--expires-in", "600", bucket+"/one/dir/a b"))
	if status, body := fetchBody(t.Context(), t, signed); status != http.StatusOK || body != "space" {
		t.Errorf("presign: got %d, %q of %s", status, body, signed)
	}
	p.fails(t, "NoSuchKey", "s3api", "get-object", "--bucket", name, "--key", "absent", one)
	p.fails(t, "BucketNotEmpty", "s3", "rb", bucket)
	p.run(t, "s3", "rb", "--force", bucket)
	p.fails(t, "NoSuchBucket", "s3", "ls", bucket)
}
