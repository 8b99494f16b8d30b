package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"hash"
	"strings"
	"sync"
)

// signature is a SHA-256 or an HMAC-SHA256 in hex.
type signature [64]byte

func (s *signature) equals(given string) bool {
	return subtle.ConstantTimeCompare(s[:], []byte(strings.ToLower(given))) == 1
}

// signingKey is the key of one secret, day, region and service. It keeps keyed
// hashes, so that a signature costs two blocks and no allocation.
type signingKey struct {
	key  []byte
	macs sync.Pool // of *mac
}

type mac struct {
	h   hash.Hash
	sum [sha256.Size]byte
}

// deriveKey computes HMAC(HMAC(HMAC(HMAC("AWS4"+secret, date), region), service), "aws4_request").
func deriveKey(secret, date, region, service string) *signingKey {
	key := []byte("AWS4" + secret)
	for _, part := range []string{date, region, service, scopeEnd} {
		h := hmac.New(sha256.New, key)
		_, _ = h.Write([]byte(part))
		key = h.Sum(nil)
	}
	return &signingKey{key: key}
}

func (k *signingKey) sign(message []byte) (s signature) {
	m, _ := k.macs.Get().(*mac)
	if m == nil {
		m = &mac{h: hmac.New(sha256.New, k.key)}
	}
	m.h.Reset()
	_, _ = m.h.Write(message)
	hex.Encode(s[:], m.h.Sum(m.sum[:0]))
	k.macs.Put(m)
	return s
}

// keyCache keeps the signing key of each access key in use. Only keys that the
// lookup knows get in.
type keyCache struct {
	mu sync.RWMutex
	m  map[string]cachedKey
}

type cachedKey struct {
	secret, date, region, service string
	key                           *signingKey
}

// maxCached bounds the cache; it starts anew beyond.
const maxCached = 4096

func (c *keyCache) get(accessKey, secret, date, region, service string) *signingKey {
	c.mu.RLock()
	k, ok := c.m[accessKey]
	c.mu.RUnlock()
	if ok && k.secret == secret && k.date == date && k.region == region && k.service == service {
		return k.key
	}
	// The date is part of a request's memory; region and service are the
	// verifier's own.
	k = cachedKey{secret, strings.Clone(date), region, service, deriveKey(secret, date, region, service)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= maxCached {
		c.m = map[string]cachedKey{}
	}
	c.m[strings.Clone(accessKey)] = k
	return k.key
}

// scratch is the memory for building what is signed.
type scratch struct {
	buf     []byte
	encoded []byte
	pairs   []pair
}

// stringToSign replaces the canonical request in s.buf by what is signed for
// it (page sig-v4-header-based-auth, "Task 2: Create a String to Sign").
func (s *scratch) stringToSign(amzDate, scope string) {
	sum := sha256.Sum256(s.buf)
	s.buf = append(s.buf[:0], Algorithm...)
	s.buf = append(s.buf, '\n')
	s.buf = append(s.buf, amzDate...)
	s.buf = append(s.buf, '\n')
	s.buf = append(s.buf, scope...)
	s.buf = append(s.buf, '\n')
	s.buf = hex.AppendEncode(s.buf, sum[:])
}
