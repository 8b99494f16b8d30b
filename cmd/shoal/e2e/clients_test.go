package e2e_test

import (
	"testing"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/s3gateway/clients"
)

// TestClients runs the programs that people use with S3 against nodes of a
// cluster of which one was killed.
func TestClients(t *testing.T) {
	c := startCluster(t, 3, 2)
	c.kill("n2")
	c.bucket("awaits-take-over", "mirror-2")
	t.Run("rclone", func(t *testing.T) { clients.Rclone(t, c.target("n1")) })
	t.Run("s3cmd", func(t *testing.T) { clients.S3cmd(t, c.target("n3")) })
}

func (c *cluster) target(node string) clients.Target {
	return clients.Target{URL: c.urls[node], AccessKey: config.DevAccessKey, Secret: config.DevSecretKey}
}
