package core

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRemoteSettings(t *testing.T) {
	all := RemoteSettings{Account: "a.b-c_1", Endpoint: "https://s3.example.net:9000/base", Region: "eu-central-1", Profile: "my profile", Name: "other", PathStyle: true, Conditions: true}
	for _, c := range []struct {
		p Provider
		s RemoteSettings
	}{
		{Shoal, RemoteSettings{}},
		{S3, RemoteSettings{}},
		{HTTP, RemoteSettings{}},
		{File, RemoteSettings{}},
		{S3, all},
		{S3, RemoteSettings{Anonymous: true}},
		{GCS, RemoteSettings{Account: "x", Endpoint: "http://h", Name: "a_b", Anonymous: true}},
	} {
		if err := c.s.Validate(c.p); err != nil {
			t.Errorf("%s %+v: %v", c.p, c.s, err)
		}
	}
	for _, c := range []struct {
		p    Provider
		s    RemoteSettings
		want string
	}{
		{Shoal, RemoteSettings{Endpoint: "http://h"}, "endpoint has no meaning for buckets of shoal://"},
		{Shoal, RemoteSettings{Account: "a"}, "account has no"},
		{HTTP, RemoteSettings{Name: "h"}, "name has no"},
		{File, RemoteSettings{Anonymous: true}, "anonymous has no"},
		{GCS, RemoteSettings{Region: "eu"}, "region has no"},
		{GCS, RemoteSettings{Profile: "eu"}, "profile has no"},
		{GCS, RemoteSettings{PathStyle: true}, "path_style has no"},
		{HTTP, RemoteSettings{Conditions: true}, "conditions has no"},
		{S3, RemoteSettings{Account: "A"}, `account "A"`},
		{S3, RemoteSettings{Endpoint: "h:9000"}, "endpoint: want http://"},
		{S3, RemoteSettings{Endpoint: "http://user:hidden@h"}, "endpoint: want http://"},
		{S3, RemoteSettings{Endpoint: "http://h?x"}, "endpoint: want http://"},
		{S3, RemoteSettings{Region: "eu west"}, `region "eu west"`},
		{S3, RemoteSettings{Profile: "a\nb"}, `profile "a\nb"`},
		{S3, RemoteSettings{Profile: "a", Anonymous: true}, "exclude each other"},
		{S3, RemoteSettings{Name: "a_b"}, "name: "},
	} {
		err := c.s.Validate(c.p)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s %+v: got %v, want %s", c.p, c.s, err, c.want)
		}
	}
}

// A program that does not know the settings refuses the map, and a change of
// them waits for every node, as one of the policy does.
func TestMapWithRemoteSettings(t *testing.T) {
	m := &Map{
		Cluster: "c", Epoch: 1, Made: time.Unix(0, 0).UTC(), Nodes: []Node{{ID: "n1"}}, Voters: []Voter{{Node: "n1", Key: "k"}}, Slots: make(SlotTable, 1),
		Buckets: []Bucket{{ID: 1, Name: BucketName{S3, "abc"}, State: BucketOK}},
	}
	if err := m.Seal(); err != nil || m.Features != 0 {
		t.Fatalf("features %d, %v", m.Features, err)
	}
	next := m.Clone()
	next.Buckets[0].Remote = RemoteSettings{Endpoint: "http://h"}
	if err := next.Seal(); err != nil || next.Features != mapRemote || m.Buckets[0].Remote.Endpoint != "" {
		t.Fatalf("features %d, %v", next.Features, err)
	}
	b, err := next.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeMap(b)
	if err != nil || back.Buckets[0].Remote != next.Buckets[0].Remote {
		t.Errorf("read back: %+v, %v", back, err)
	}
	if got := m.Losers(next); len(got) != 1 {
		t.Errorf("who loses by other settings: %v, want the node", got)
	}
	if got := m.Losers(m.Clone()); len(got) != 0 {
		t.Errorf("who loses by nothing: %v", got)
	}
	back = back.Clone()
	back.Buckets[0].Remote = RemoteSettings{}
	if err := back.Seal(); err != nil || back.Features != 0 {
		t.Errorf("features %d after the settings went, %v", back.Features, err)
	}
}
