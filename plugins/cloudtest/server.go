// Package cloudtest starts real servers of S3 and Google Cloud Storage that
// other people wrote, on loopback, and a proxy in front of them that counts what
// is asked of them and breaks it where it is told to. Tests, benchmarks and the
// demo use it.
//
//	s, err := cloudtest.Start(ctx, cloudtest.Options{Kind: cloudtest.S3})
//	defer s.Close()
//	p, err := cloudtest.StartProxy(cloudtest.ProxyOptions{Kind: s.Kind(), Upstream: s.URL()})
//	defer p.Close()
//	p.SetRules(cloudtest.Rule{Latency: 50 * time.Millisecond, Bandwidth: 32 << 20})
//	... speak to p.URL() with s.AccessKey(), s.Secret(), s.Region(), path style ...
//	fmt.Println(p.Counts().Of(cloudtest.GetObject).Requests)
//
// In tests [Serve] and [ServeProxy] do the same and clean up.
package cloudtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sys/unix"

	"github.com/shoalstore/shoal/core"
)

// Kind is the protocol of a server.
type Kind string

// The kinds: versitygw serves S3, fake-gcs-server GCS.
const (
	S3  Kind = "s3"
	GCS Kind = "gcs"
)

// Program is the name of the server's program.
func (k Kind) Program() string {
	if k == GCS {
		return "fake-gcs-server"
	}
	return "versitygw"
}

// ErrNoProgram says that the server's program is not installed.
var ErrNoProgram = errors.New("not installed: scripts/tools.sh installs it")

// Options of [Start].
type Options struct {
	// Kind is [S3] by default.
	Kind Kind
	// Program is the path of the server's program; by default it is looked for in
	// PATH and in the .tools/bin of the working directory and those above it.
	Program string
	// Dir is where objects and the log are; by default a new directory for
	// temporary files, which Close removes.
	Dir string
	// Memory keeps GCS objects in memory. (S3's are files in any case.)
	Memory bool
	// AccessKey, Secret and Region are those of the S3 server's only account, by
	// default "cloudtest", "cloudtest-secret" and "us-east-1".
	AccessKey, Secret, Region string
	// Buckets are created before Start returns.
	Buckets []string
}

// Server is a running server. Its methods may be called concurrently.
type Server struct {
	o       Options
	dir     string
	ownsDir bool
	log     string
	cmd     *exec.Cmd
	url     string
	ended   chan struct{} // closed when the process has ended
	waitErr error         // set before ended is closed
	close   sync.Once
}

// Start starts a server and returns once it answers. ctx is for the start only;
// Close ends the server.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	if o.Kind == "" {
		o.Kind = S3
	}
	setDefault(&o.AccessKey, "cloudtest")
	setDefault(&o.Secret, "cloudtest-secret")
	setDefault(&o.Region, "us-east-1")
	if o.Program == "" {
		if o.Program, err = FindProgram(o.Kind.Program()); err != nil {
			return nil, err
		}
	}
	s := &Server{o: o, dir: o.Dir, ended: make(chan struct{})}
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "cloudtest-"); err != nil {
			return nil, fmt.Errorf("cloudtest: %w", err)
		}
		s.ownsDir = true
	}
	s.log = filepath.Join(s.dir, "server.log")
	if err := s.run(); err != nil {
		s.removeDir()
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		log := s.Log()
		_ = s.Close()
		return nil, fmt.Errorf("cloudtest: %s: %w\n%s", o.Kind.Program(), err, log)
	}
	return s, nil
}

func setDefault(s *string, to string) {
	if *s == "" {
		*s = to
	}
}

// FindProgram looks for a program in PATH, then in the .tools/bin of the working
// directory and of those above it. If there is none the error is [ErrNoProgram].
func FindProgram(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("cloudtest: look for %s: %w", name, err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if p, err := exec.LookPath(filepath.Join(dir, ".tools", "bin", name)); err == nil {
			return p, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s %w", name, ErrNoProgram)
		}
	}
}

// run starts the process. It listens at a port that the kernel chooses, so that
// nobody else can take it.
func (s *Server) run() error {
	var args, env []string
	data := filepath.Join(s.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("cloudtest: %w", err)
	}
	if s.o.Kind == GCS {
		args = []string{"-scheme", "http", "-host", "127.0.0.1", "-port", "0", "-public-host", "127.0.0.1", "-log-level", "warn"}
		if s.o.Memory {
			args = append(args, "-backend", "memory")
		} else {
			args = append(args, "-backend", "filesystem", "-filesystem-root", data)
		}
	} else {
		args = []string{"--port", "127.0.0.1:0", "--region", s.o.Region, "--keep-alive", "--quiet", "posix"}
		env = []string{"ROOT_ACCESS_KEY=" + s.o.AccessKey, "ROOT_SECRET_KEY=" + s.o.Secret}
		if !holdsAttributes(data) {
			meta := filepath.Join(s.dir, "meta")
			if err := os.MkdirAll(meta, 0o700); err != nil {
				return fmt.Errorf("cloudtest: %w", err)
			}
			args = append(args, "--sidecar", meta)
		}
		args = append(args, data)
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("cloudtest: %w", err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	s.cmd = exec.Command(s.o.Program, args...)
	// Nothing of the caller's environment: a setting there would change the server.
	s.cmd.Env = append(env, "PATH=/usr/bin:/bin", "HOME="+s.dir, "TMPDIR="+os.TempDir())
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, log, log
	s.cmd.SysProcAttr = processAttributes()
	started := make(chan error, 1)
	go func() {
		// The kernel takes the end of the thread that started a process for that of its
		// parent, so the thread is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.waitErr = s.cmd.Wait()
		}
		close(s.ended)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("cloudtest: start %s: %w", s.o.Program, err)
	}
	return nil
}

// holdsAttributes says whether files in dir can have extended attributes.
func holdsAttributes(dir string) bool {
	return unix.Setxattr(dir, "user.cloudtest", []byte("1"), 0) == nil &&
		unix.Removexattr(dir, "user.cloudtest") == nil
}

// startTimeout is how long a server may take to answer; the machine may be busy.
const startTimeout = 30 * time.Second

// ready waits until the server answers, and creates the buckets.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	port, err := s.awaitPort(ctx)
	if err != nil {
		return err
	}
	s.url = "http://127.0.0.1:" + strconv.Itoa(port)
	if err := s.awaitAnswer(ctx); err != nil {
		return err
	}
	for _, b := range s.o.Buckets {
		if err := s.CreateBucket(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// poll calls f every few milliseconds until it says true.
func (s *Server) poll(ctx context.Context, what string, f func() (bool, error)) error {
	for {
		if ok, err := f(); ok || err != nil {
			return err
		}
		select {
		case <-s.ended:
			return fmt.Errorf("it ended before %s: %w", what, s.waitErr)
		default:
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("still waiting for %s: %w", what, err)
		}
	}
}

// awaitPort waits until the process listens, and returns its port.
func (s *Server) awaitPort(ctx context.Context) (port int, err error) {
	err = s.poll(ctx, "its port", func() (bool, error) {
		port, err = listeningPort(s.cmd.Process.Pid)
		return port != 0, err
	})
	return port, err
}

func (s *Server) awaitAnswer(ctx context.Context) error {
	var last error
	err := s.poll(ctx, "an answer", func() (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/_internal/healthcheck", http.NoBody)
		if err != nil {
			return false, err
		}
		res, err := s.client().Do(req)
		if err != nil {
			last = err
			return false, nil
		}
		return true, res.Body.Close() // of S3 any answer will do
	})
	if err != nil && last != nil {
		return fmt.Errorf("%w (last: %w)", err, last)
	}
	return err
}

// client makes a connection per request, so that nothing stays open.
func (s *Server) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// Kind is the server's protocol.
func (s *Server) Kind() Kind { return s.o.Kind }

// URL is the endpoint, "http://127.0.0.1:port".
func (s *Server) URL() string { return s.url }

// AccessKey is that of the S3 server's account; GCS's takes any request.
func (s *Server) AccessKey() string { return s.o.AccessKey }

// Secret belongs to the AccessKey.
func (s *Server) Secret() string { return s.o.Secret }

// Region is the S3 server's.
func (s *Server) Region() string { return s.o.Region }

// PID is the process id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Settings are those of a backend at endpoint, which is the server's or that of a
// proxy before it.
func (s *Server) Settings(endpoint string) core.RemoteSettings {
	if s.o.Kind == GCS {
		return core.RemoteSettings{Endpoint: endpoint, Anonymous: true}
	}
	return core.RemoteSettings{Endpoint: endpoint, Region: s.o.Region, PathStyle: true}
}

// Log is what the server wrote, or its end.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	const most = 16 << 10
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

// CreateBucket makes a bucket.
func (s *Server) CreateBucket(ctx context.Context, name string) error {
	if s.o.Kind == GCS {
		return s.postBucket(ctx, name)
	}
	c := s3.New(s3.Options{
		BaseEndpoint: aws.String(s.url), Region: s.o.Region, UsePathStyle: true, HTTPClient: s.client(),
		Credentials: credentials.NewStaticCredentialsProvider(s.o.AccessKey, s.o.Secret, ""),
	})
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name}); err != nil {
		return fmt.Errorf("cloudtest: create bucket %s: %w", name, err)
	}
	return nil
}

func (s *Server) postBucket(ctx context.Context, name string) error {
	body := strings.NewReader(`{"name":` + strconv.Quote(name) + `}`)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/storage/v1/b?project=cloudtest", body)
	if err != nil {
		return fmt.Errorf("cloudtest: create bucket %s: %w", name, err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := s.client().Do(req)
	if err != nil {
		return fmt.Errorf("cloudtest: create bucket %s: %w", name, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var b bytes.Buffer
		_, _ = b.ReadFrom(http.MaxBytesReader(nil, res.Body, 4096))
		return fmt.Errorf("cloudtest: create bucket %s: %s: %s", name, res.Status, b.String())
	}
	return nil
}

// Close ends the server and waits for it, and removes what it stored if Options
// named no directory.
func (s *Server) Close() error {
	var err error
	s.close.Do(func() {
		select {
		case <-s.ended:
			err = fmt.Errorf("cloudtest: %s had ended before: %w", s.o.Kind.Program(), s.waitErr)
		default:
			// What it stored is not needed any more, so it need not end in order.
			_ = s.cmd.Process.Kill()
			<-s.ended
		}
		s.removeDir()
	})
	return err
}

func (s *Server) removeDir() {
	if s.ownsDir {
		_ = os.RemoveAll(s.dir)
	}
}

// parseUpstream is the URL of a server without path.
func parseUpstream(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("cloudtest: upstream: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("cloudtest: upstream %q: want http://host:port", raw)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}
