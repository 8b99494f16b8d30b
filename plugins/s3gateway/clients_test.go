package s3gateway

import (
	"testing"

	"github.com/shoalstore/shoal/plugins/s3gateway/clients"
)

// The programs that people use, against the gateway over a memory store.
func TestClients(t *testing.T) {
	if testing.Short() {
		t.Skip("programs of others are left out by -short")
	}
	e := serve(t, nil, false)
	clients.Run(t, clients.Target{URL: e.url, AccessKey: testKey, Secret: testSecret})
}
