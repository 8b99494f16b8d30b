package cloudtest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/plugins/cloudtest"
)

// TestUploads: one is written, one refused, one is lost on the way, and one is
// under way; a read and a part are none.
func TestUploads(t *testing.T) {
	here, answer := make(chan struct{}), make(chan struct{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Query().Get("name") {
		case "late":
			close(here)
			<-answer
		case "there":
			w.WriteHeader(http.StatusPreconditionFailed)
		}
	}))
	defer up.Close()
	p, err := cloudtest.StartProxy(cloudtest.ProxyOptions{Kind: cloudtest.GCS, Upstream: up.URL, Uploads: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	p.SetRules(cloudtest.Rule{KeyPrefix: "lost", Fault: cloudtest.ResetBefore})
	post := func(name string) {
		res, err := http.Post(p.URL()+"/upload/storage/v1/b/dst/o?uploadType=media&name="+name, "text/plain", strings.NewReader("x"))
		if err == nil {
			_ = res.Body.Close()
		}
	}
	for _, name := range []string{"a", "a", "there", "lost"} {
		post(name)
	}
	if res, err := http.Get(p.URL() + "/storage/v1/b/dst/o/read?alt=media"); err == nil {
		_ = res.Body.Close()
	}
	ended := make(chan struct{})
	go func() { post("late"); close(ended) }()
	<-here
	got := p.Uploads("dst")
	close(answer)
	<-ended
	want := map[string]cloudtest.Upload{"a": {Sent: 2, Written: 2}, "there": {Sent: 1, Refused: 1}, "late": {Sent: 1, Active: 1}}
	if len(got) != len(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for name, u := range want {
		if got[name] != u {
			t.Errorf("%s: got %+v, want %+v", name, got[name], u)
		}
	}
	if u := p.Uploads("dst")["late"]; u.Active != 0 || u.Written != 1 {
		t.Errorf("late: got %+v, want it written", u)
	}
	if len(p.Uploads("other")) != 0 {
		t.Error("got uploads of a bucket that has none")
	}
}
