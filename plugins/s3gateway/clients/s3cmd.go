package clients

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// S3cmd puts, gets, describes and removes with s3cmd.
func S3cmd(t *testing.T, g Target) {
	host := strings.TrimPrefix(strings.TrimPrefix(g.URL, "http://"), "https://")
	ssl := "--no-ssl"
	if strings.HasPrefix(g.URL, "https://") {
		ssl = "--ssl"
	}
	p := program{path: find(t, "s3cmd"), args: []string{
		"-c", os.DevNull, "--access_key=" + g.AccessKey, "--secret_key=" + g.Secret, "--host=" + host, "--host-bucket=" + host,
		"--region=" + g.region(), ssl, "--no-progress", "--multipart-chunk-size-mb=5", "--no-check-certificate",
	}}
	f := files(12 << 20)
	dir, bucket := f.write(t), "s3://"+newName("s3cmd")
	p.run(t, "mb", bucket)
	if out := p.run(t, "ls"); !strings.Contains(out, bucket+"\n") {
		t.Errorf("ls: got %q, want %s among them", out, bucket)
	}
	p.run(t, "sync", dir+"/", bucket+"/one/")
	var want []string
	for _, n := range f.names() {
		want = append(want, bucket+"/one/"+n)
	}
	var got []string
	for _, l := range lines(p.run(t, "ls", "-r", bucket)) {
		_, name, _ := strings.Cut(l, "s3://")
		got = append(got, "s3://"+name)
	}
	equalLines(t, "ls -r", sorted(got), sorted(want))
	if out := p.run(t, "ls", bucket+"/one/"); strings.Count(out, "\n") != 4 || !strings.Contains(out, "DIR") {
		t.Errorf("ls of a folder: got %q", out)
	}
	back := t.TempDir()
	p.run(t, "sync", bucket+"/one/", back+"/")
	f.want(t, "synchronised back", back)

	if out := p.run(t, "info", bucket+"/one/plain.txt"); !strings.Contains(out, "File size: 5") || !strings.Contains(out, "FULL_CONTROL") {
		t.Errorf("info: got %q", out)
	}
	p.run(t, "info", bucket)
	p.run(t, "cp", bucket+"/one/large.bin", bucket+"/copied.bin")
	p.run(t, "mv", bucket+"/one/dir/a+b%20c", bucket+"/moved+%20")
	p.run(t, "modify", "--add-header=x-amz-meta-colour:blue", bucket+"/copied.bin")
	if out := p.run(t, "info", bucket+"/copied.bin"); !strings.Contains(out, "x-amz-meta-colour: blue") {
		t.Errorf("info after modify: got %q", out)
	}
	one := filepath.Join(t.TempDir(), "one")
	p.run(t, "get", bucket+"/copied.bin", one)
	tree{"one": f["large.bin"]}.want(t, "copied", filepath.Dir(one))
	p.run(t, "get", "--force", bucket+"/moved+%20", one)
	tree{"one": f["dir/a+b%20c"]}.want(t, "moved", filepath.Dir(one))
	p.fails(t, "does not exist", "get", "--force", bucket+"/one/dir/a+b%20c", one)

	signed := strings.TrimSpace(p.run(t, "signurl", bucket+"/one/plain.txt", "+600"))
	if status := fetch(t, signed); status != http.StatusBadRequest {
		// s3cmd signs URLs by the old signature, which is refused.
		t.Errorf("signurl: got status %d of %s", status, signed)
	}
	p.run(t, "multipart", bucket)
	p.fails(t, "NotImplemented", "setacl", "--acl-public", bucket+"/one/plain.txt")
	p.run(t, "del", bucket+"/copied.bin")
	p.run(t, "del", "-r", "--force", bucket)
	p.run(t, "rb", bucket)
	p.fails(t, "NoSuchBucket", "ls", bucket)
}

// fetch gets a URL as a browser would and returns the status.
func fetch(t *testing.T, url string) int {
	t.Helper()
	status, _ := fetchBody(t.Context(), t, url)
	return status
}

func fetchBody(ctx context.Context, t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
