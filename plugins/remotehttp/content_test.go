package remotehttp

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/shoalstore/shoal/core"
)

func TestParseContent(t *testing.T) {
	type answer struct {
		status int
		length int64
		run    string
	}
	for _, c := range []struct {
		res            answer
		want           Content
		offset, length int64
		is             bool
	}{
		{answer{200, 10, ""}, Content{0, 10, 10}, 0, -1, true},
		{answer{200, 10, "bytes 1-2/3"}, Content{0, 10, 10}, 0, 20, true},
		{answer{200, 10, ""}, Content{0, 10, 10}, 0, 5, false},
		{answer{200, 0, ""}, Content{0, 0, 0}, 0, -1, true},
		{answer{206, 5, "bytes 5-9/10"}, Content{5, 5, 10}, 5, -1, true},
		{answer{206, -1, "bytes 5-9/10"}, Content{5, 5, 10}, 5, 5, true},
		{answer{206, 5, "bytes 5-9/10"}, Content{5, 5, 10}, 5, 100, true},
		{answer{206, 5, "bytes 5-9/10"}, Content{5, 5, 10}, 5, 4, false},
		{answer{206, 5, "bytes 5-9/20"}, Content{5, 5, 20}, 5, 10, false},
		{answer{206, 5, "bytes 5-9/10"}, Content{5, 5, 10}, 4, 5, false},
		{answer{206, 5, "bytes 5-9/*"}, Content{5, 5, -1}, 5, 5, true},
		{answer{206, 5, "bytes 5-9/*"}, Content{5, 5, -1}, 5, -1, false},
		{answer{206, 5, "bytes 5-9/*"}, Content{5, 5, -1}, 5, 4, false},
	} {
		got, err := ParseContent(c.res.status, c.res.length, c.res.run)
		if err != nil || got != c.want || got.Is(c.offset, c.length) != c.is {
			t.Errorf("%+v: got %+v, %v, is %v", c, got, err, got.Is(c.offset, c.length))
		}
	}
	for _, res := range []answer{
		{200, -1, ""},
		{206, 5, ""},
		{206, 5, "junk"},
		{206, 5, "bytes 5-9"},
		{206, 5, "bytes */10"},
		{206, 5, "bytes 9-5/10"},
		{206, 5, "bytes 5-9/9"},
		{206, 4, "bytes 5-9/10"},
		{206, 5, "items 5-9/10"},
		{206, 5, "bytes -5-9/10"},
		{206, 5, "bytes 5-9/-1"},
		{206, 5, "bytes 5-99999999999999999999/10"},
	} {
		if got, err := ParseContent(res.status, res.length, res.run); err == nil {
			t.Errorf("%+v: got %+v", res, got)
		}
	}
}

func FuzzParseContent(f *testing.F) {
	f.Add("bytes 5-9/10", int64(5))
	f.Add("bytes 0-0/*", int64(-1))
	f.Fuzz(func(t *testing.T, run string, length int64) {
		c, err := ParseContent(206, length, run)
		if err == nil && (c.Offset < 0 || c.Length < 1 || c.Total < -1 || c.Total >= 0 && c.Offset+c.Length > c.Total || length >= 0 && length != c.Length) {
			t.Errorf("%q, %d: %+v", run, length, c)
		}
	})
}

func TestExactBody(t *testing.T) {
	for _, c := range []struct {
		body string
		n    int64
		want string
		ok   bool
	}{{"abc", 3, "abc", true}, {"abcd", 3, "abc", true}, {"ab", 3, "ab", false}, {"", 0, "", true}, {"", 1, "", false}} {
		for _, r := range []io.Reader{strings.NewReader(c.body), iotest.DataErrReader(strings.NewReader(c.body)), iotest.OneByteReader(strings.NewReader(c.body))} {
			got, err := io.ReadAll(ExactBody(io.NopCloser(r), c.n))
			if string(got) != c.want || (err == nil) != c.ok || !c.ok && !errors.Is(err, core.ErrUnavailable) {
				t.Errorf("%+v: got %q, %v", c, got, err)
			}
		}
	}
	_, err := io.ReadAll(ExactBody(io.NopCloser(iotest.ErrReader(context.Canceled)), 5))
	if !errors.Is(err, context.Canceled) || !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// A body that fails never arrives whole, and is always closed before Done returns.
func TestSendBody(t *testing.T) {
	var whole atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil {
			whole.Store(string(b))
		}
	}))
	defer s.Close()
	c := &http.Client{Transport: Transport(nil)}
	defer c.CloseIdleConnections()
	broke := errors.New("broke")
	for name, tt := range map[string]struct {
		r    io.Reader
		want error
	}{
		"good":    {strings.NewReader("12345"), nil},
		"short":   {strings.NewReader("1234"), io.ErrUnexpectedEOF},
		"long":    {strings.NewReader("123456"), core.ErrInvalid},
		"failing": {io.MultiReader(strings.NewReader("123"), iotest.ErrReader(broke)), broke},
		"at once": {iotest.ErrReader(broke), broke},
	} {
		whole.Store("")
		closed := 0
		b := &SendBody{Head: []byte("<"), Tail: []byte(">"), Size: 5, Sum: sha256.New(), Open: func(context.Context) (io.ReadCloser, error) {
			return closer{tt.r, &closed}, nil
		}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Attach(req); err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		bad := b.Done()
		if err == nil {
			_ = res.Body.Close()
		}
		if (err == nil) != (tt.want == nil) || !errors.Is(bad, tt.want) || closed != 1 {
			t.Errorf("%s: %v; %v; closed %d times", name, err, bad, closed)
		}
		if got := whole.Load(); tt.want == nil && got != "<12345>" || tt.want != nil && got != "" {
			t.Errorf("%s: the server has got %q", name, got)
		}
		if sum := sha256.Sum256([]byte("12345")); tt.want == nil && string(b.Sum.Sum(nil)) != string(sum[:]) {
			t.Errorf("%s: another checksum", name)
		}
	}
	b := &SendBody{Open: func(context.Context) (io.ReadCloser, error) { return nil, broke }}
	if err := b.Attach(&http.Request{}); !errors.Is(err, broke) || b.Done() != nil {
		t.Errorf("a body that cannot be opened: %v", err)
	}
}

type closer struct {
	io.Reader
	n *int
}

func (c closer) Close() error {
	*c.n++
	return nil
}
