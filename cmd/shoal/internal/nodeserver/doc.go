// Package nodeserver puts a node together from its configuration and runs it:
// disks, peers, bus, engine, jobs, and the HTTP port with S3 and /-/.
//
//	id, err := nodeserver.Init(ctx, []config.Config{c}, nodeserver.InitOptions{}, log)
//	err = nodeserver.Run(ctx, c, nodeserver.RunOptions{Version: "v1.0.0"}, log) // until ctx ends
package nodeserver
