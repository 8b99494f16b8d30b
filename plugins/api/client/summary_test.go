package client_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/apitest"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// TestSummaryGoesOn breaks the counting of a remote bucket again and again: no
// object is counted twice or left out.
func TestSummaryGoesOn(t *testing.T) {
	f := apitest.New(t, 2)
	c := connect(t, f)
	src := core.BucketName{Provider: core.S3, Name: "src"}
	var list []api.Object
	for i := range 500 {
		list = append(list, api.Object{Name: fmt.Sprintf("o%04d", i), Size: int64(i), Part: i == 7})
	}
	f.Buckets.AddRemote(src, list...)
	f.BreakAfter(0, 4, 9_001)
	f.BreakAfter(1, 4, 7_003)
	before := f.Requests(0) + f.Requests(1)
	sum, err := c.Summary(t.Context(), src, client.SummaryOptions{All: true})
	want := api.Amount{Objects: 500, Bytes: 499 * 500 / 2}
	if err != nil || sum.Remote == nil || *sum.Remote != want || sum.Present != (api.Amount{Objects: 1, Bytes: 7}) || !sum.Accessible {
		t.Errorf("got %+v, remote %+v, %v; want %+v", sum, sum.Remote, err, want)
	}
	if n := f.Requests(0) + f.Requests(1) - before; n < 5 {
		t.Errorf("%d requests: nothing was broken off", n)
	}
}

// TestRemoteRefusals: what a remote has said is not asked for again.
func TestRemoteRefusals(t *testing.T) {
	f := apitest.New(t, 2)
	c := connect(t, f)
	src := core.BucketName{Provider: core.S3, Name: "src"}
	f.Buckets.AddRemote(src)
	for code, want := range map[api.Code]error{
		api.CodeRemote: core.ErrUnavailable, api.CodeThrottled: core.ErrThrottled, api.CodeWrongRegion: core.ErrWrongRegion,
		api.CodeForbidden: core.ErrPermission, api.CodeNoSuchBucket: core.ErrNoSuchBucket,
	} {
		f.Buckets.Refuse(src, &api.Error{Code: code, Message: "words"})
		before := f.Requests(0) + f.Requests(1)
		_, err := c.Bucket(t.Context(), src)
		if n := f.Requests(0) + f.Requests(1) - before; !errors.Is(err, want) || n != 1 {
			t.Errorf("%s: got %v after %d requests, want %v after 1", code, err, n, want)
		}
	}
}
