package main

import "testing"

func testKey() *key {
	return &key{bucket: &chaosBucket{name: "b"}, name: "k", allowed: []value{{}}}
}

var (
	none = value{}
	v1   = value{"1", 1}
	v2   = value{"2", 2}
	v3   = value{"3", 3}
)

func write(k *key, v value, o outcome) {
	k.begin(v)
	k.end(v, o)
}

func TestKeyHoldsWhatWasAcknowledged(t *testing.T) {
	k := testKey()
	write(k, v1, acknowledged)
	if err := k.observe(v1); err != nil {
		t.Error(err)
	}
	if k.observe(none) == nil || k.observe(v2) == nil {
		t.Error("got nothing amiss with a lost and with a strange value")
	}
	write(k, none, acknowledged)
	if err := k.observe(none); err != nil {
		t.Error(err)
	}
	if k.observe(v1) == nil {
		t.Error("got nothing amiss with a value that was deleted")
	}
}

func TestOpenWriteTakesEffectOnce(t *testing.T) {
	k := testKey()
	write(k, v1, acknowledged)
	write(k, v2, unknown)
	write(k, v3, acknowledged)
	if err := k.observe(v3); err != nil {
		t.Error(err)
	}
	if k.observe(v1) == nil {
		t.Error("got nothing amiss with a value that was replaced")
	}
	if err := k.observe(v2); err != nil {
		t.Errorf("an open write that takes effect late: %v", err)
	}
	if k.observe(v3) == nil {
		t.Error("got nothing amiss with a value that an open write has replaced")
	}
	write(k, v1, acknowledged)
	if k.observe(v2) == nil {
		t.Error("got nothing amiss with a write that took effect twice")
	}
	write(k, v2, notSent)
	if k.observe(v2) == nil {
		t.Error("got nothing amiss with a write that was never sent")
	}
}

func TestListings(t *testing.T) {
	k := testKey()
	write(k, v1, acknowledged)
	quiet := k.snapshot()
	if err := k.listed(quiet, v1); err != nil {
		t.Error(err)
	}
	if k.listed(quiet, none) == nil || k.listed(quiet, v2) == nil {
		t.Error("got nothing amiss with a listing without the key, or with another value")
	}
	write(k, v2, acknowledged)
	if k.listed(quiet, none) == nil {
		t.Error("got nothing amiss with a listing that leaves out a key written over meanwhile")
	}
	if err := k.listed(quiet, v1); err != nil {
		t.Error(err)
	}
	write(k, none, acknowledged)
	if err := k.listed(quiet, none); err != nil {
		t.Errorf("a key that was deleted meanwhile: %v", err)
	}
	gone := k.snapshot()
	if k.listed(gone, v2) == nil {
		t.Error("got nothing amiss with a listing of a deleted key")
	}
}
