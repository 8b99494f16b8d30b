package main

import (
	"context"
	"log/slog"

	"github.com/shoalstore/shoal/cmd/shoal/internal/nodeserver"
	"github.com/shoalstore/shoal/config"
)

// runServer runs a node until ctx ends.
func runServer(ctx context.Context, c config.Config, withoutDisks bool, log *slog.Logger) error {
	return nodeserver.Run(ctx, c, nodeserver.RunOptions{Version: version(), WithoutDisks: withoutDisks}, log)
}

// runInit makes a cluster of the nodes and returns its id.
func runInit(ctx context.Context, nodes []config.Config, in initOptions, log *slog.Logger) (string, error) {
	return nodeserver.Init(ctx, nodes, nodeserver.InitOptions{Slots: in.Slots, Replicas: in.Replicas, Force: in.Force}, log)
}

// runJoin adds the node to the cluster of its seeds.
func runJoin(ctx context.Context, c config.Config, log *slog.Logger) error {
	return nodeserver.Join(ctx, c, log)
}
