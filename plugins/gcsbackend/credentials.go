package gcsbackend

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/httptransport"
	"cloud.google.com/go/storage"

	"github.com/shoalstore/shoal/core"
)

// signed signs requests with credentials that it looks for when they are first
// needed, and again as long as there are none.
type signed struct {
	file string
	base *http.Transport

	mu    sync.Mutex
	found *auth.Credentials
	next  http.RoundTripper
}

func (s *signed) find() (*auth.Credentials, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found != nil {
		return s.found, nil
	}
	c, err := look(s.file)
	if err != nil {
		return nil, fmt.Errorf("no credentials (for public objects ask for anonymous access): %w: %w", core.ErrPermission, err)
	}
	client := &http.Client{Transport: s.base}
	if err := httptransport.AddAuthorizationMiddleware(client, c); err != nil {
		return nil, err
	}
	s.found, s.next = c, client.Transport
	return c, nil
}

// RoundTrip implements [http.RoundTripper].
func (s *signed) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := s.find(); err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	return s.next.RoundTrip(r)
}

// CloseIdleConnections is what [http.Client] looks for.
func (s *signed) CloseIdleConnections() { s.base.CloseIdleConnections() }

// look finds credentials: those of the file or, if that is "", the default ones.
func look(file string) (*auth.Credentials, error) {
	o := &credentials.DetectOptions{Scopes: []string{storage.ScopeFullControl}}
	if file == "" {
		return credentials.DetectDefault(o)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var head struct {
		Type credentials.CredType `json:"type"`
	}
	if err := json.Unmarshal(text, &head); err != nil || head.Type == "" {
		// The parser's words may repeat the file's.
		return nil, fmt.Errorf("%s: not a JSON file of credentials", file)
	}
	return credentials.NewCredentialsFromJSON(head.Type, text, o)
}
