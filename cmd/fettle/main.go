// Command fettle keeps Linux servers, and the distributed systems on them, in
// good health. It hands its arguments, the list of adapters and the runbooks to
// the command line, and nothing else.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"

	"fettle/internal/adapter/all"
	"fettle/internal/face/cli"
	"fettle/packaging"
	"fettle/runbooks"
)

// version is set when the binary is built.
var version = "unreleased"

func main() {
	os.Exit(cli.Main(cli.Setup{
		Version: version, Adapters: all.Adapters(), Runbooks: runbooks.FS(), Units: packaging.FS(), EtcdMain: etcdmain.Main,
	}, os.Args[1:]))
}
